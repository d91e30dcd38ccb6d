# Only the files of an ISA's folder get that ISA's flags; the table of kernels is chosen at run time.
# Elsewhere the folder compiles to nothing: its files guard themselves with the architecture macro.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(MICA_ISA_avx2 -mavx2 -mfma -mf16c)
  set(MICA_ISA_avx512 -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vbmi -mavx512vnni -mavx512bf16
      -mprefer-vector-width=512)
  set(MICA_ISA_amx ${MICA_ISA_avx512} -mamx-tile -mamx-bf16 -mamx-int8)
  foreach(isa avx2 avx512 amx)
    file(GLOB files CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/device/cpu/${isa}/*.c)
    if(files)
      if(MICA_SANITIZE) # instrumented and unrolled, these files take GCC minutes at -O2, seconds at -O1
        list(APPEND MICA_ISA_${isa} -O1)
      endif()
      set_source_files_properties(${files} PROPERTIES COMPILE_OPTIONS "${MICA_ISA_${isa}}")
    endif()
  endforeach()
endif()
