# make install: libraries, headers, command, mica.pc, CMake package, man page.
include(CMakePackageConfigHelpers)
install(TARGETS mica_static mica_shared EXPORT mica-targets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/mica DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES ${PROJECT_BINARY_DIR}/generated/mica/version.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/mica)
if(TARGET mica)
  install(TARGETS mica RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  add_custom_command(TARGET mica POST_BUILD COMMAND mica help --man > ${PROJECT_BINARY_DIR}/mica.1 VERBATIM) # from the tables
  install(FILES ${PROJECT_BINARY_DIR}/mica.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
endif()

install(FILES ${PROJECT_SOURCE_DIR}/docs/mica.3 DESTINATION ${CMAKE_INSTALL_MANDIR}/man3)

configure_file(${PROJECT_SOURCE_DIR}/cmake/mica.pc.in ${PROJECT_BINARY_DIR}/mica.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/mica.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/mica)
install(EXPORT mica-targets NAMESPACE mica:: DESTINATION ${package})
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/mica-config.cmake.in ${PROJECT_BINARY_DIR}/mica-config.cmake
                              INSTALL_DESTINATION ${package})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/mica-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/mica-config.cmake ${PROJECT_BINARY_DIR}/mica-config-version.cmake DESTINATION ${package})
