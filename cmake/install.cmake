# make install: libraries, headers, command, mica.pc, CMake package, man page.
install(TARGETS mica_static mica_shared EXPORT mica-targets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/mica DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES ${PROJECT_BINARY_DIR}/generated/mica/version.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/mica)
if(TARGET mica)
  install(TARGETS mica RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
