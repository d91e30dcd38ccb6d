# Only the files of an ISA's folder get that ISA's flags; the table of kernels is chosen at run time.
# Levels of other architectures are left out.
set(MICA_CPU_FOLDER ${PROJECT_SOURCE_DIR}/src/device/cpu)
set(levels_x86 avx2 avx512 amx)
set(levels_arm neon)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(levels ${levels_x86})
  set(MICA_ISA_avx2 -mavx2 -mfma -mf16c)
  set(MICA_ISA_avx512 -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vbmi -mavx512vnni -mavx512bf16
      -mprefer-vector-width=512)
  set(MICA_ISA_amx ${MICA_ISA_avx512} -mamx-tile -mamx-bf16 -mamx-int8)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  set(levels ${levels_arm})
  if(CMAKE_C_COMPILER_ID STREQUAL "GNU") # whose first scheduler runs out of registers: half of the spills in tiles are its own
    set(MICA_ISA_neon -fno-schedule-insns)
  endif()
endif()
foreach(isa ${levels_x86} ${levels_arm})
  file(GLOB files CONFIGURE_DEPENDS ${MICA_CPU_FOLDER}/${isa}/*.c)
  if(NOT isa IN_LIST levels)
    list(REMOVE_ITEM MICA_SOURCES ${files})
    continue()
  endif()
  if(MICA_SANITIZE) # instrumented and unrolled, these files take GCC minutes at -O2, seconds at -O1
    list(APPEND MICA_ISA_${isa} -O1)
  endif()
  set_source_files_properties(${files} PROPERTIES COMPILE_OPTIONS "${MICA_ISA_${isa}}")
endforeach()
