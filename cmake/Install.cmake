# What `cmake --install` puts down: the libraries and their headers, the `waymark` command, and how others find them,
# as a CMake package (Waymark::sdk, Waymark::runner) and for pkg-config (waymark, waymark-runner).
#
# Both kinds of file name the libraries that ours stand on. They are read off the targets, so that there is no second
# list to keep; this table only knows what a target is called elsewhere: its CMake package, and its pkg-config module.
include(CMakePackageConfigHelpers)

set(known_libraries
  "CURL::libcurl|CURL|libcurl"
  "ZLIB::ZLIB|ZLIB|zlib"
  "SQLite::SQLite3|SQLite3|sqlite3"
  "PostgreSQL::PostgreSQL|PostgreSQL|libpq"
  "spdlog::spdlog|spdlog|spdlog"
  "nlohmann_json::nlohmann_json|nlohmann_json|nlohmann_json"
  "yaml-cpp|yaml-cpp|yaml-cpp"
  "dw||libdw"
  "elf||libelf"
  "Threads::Threads|Threads|"
  "waymark_sdk||waymark")

# The CMake packages and the pkg-config modules that a target of ours links.
function(waymark_links target packages modules)
  get_target_property(links ${target} LINK_LIBRARIES)
  set(found_packages)
  set(found_modules)
  foreach(link ${links})
    if(link MATCHES "^\\$<BUILD_INTERFACE:")
      continue()
    endif()
    set(row ${known_libraries})
    list(FILTER row INCLUDE REGEX "^${link}\\|")
    if(NOT row)
      message(FATAL_ERROR "${target} links ${link}: add it to the table in cmake/Install.cmake")
    endif()
    string(REPLACE "|" ";" row "${row}")
    list(GET row 1 package)
    list(GET row 2 module)
    list(APPEND found_packages ${package})
    list(APPEND found_modules ${module})
  endforeach()
  set(${packages} ${found_packages} PARENT_SCOPE)
  set(${modules} ${found_modules} PARENT_SCOPE)
endfunction()

# The folder of this tree's headers, the library, its part of the package, and its pkg-config file.
function(waymark_install target headers module description)
  waymark_links(${target} packages modules)
  set_property(GLOBAL APPEND PROPERTY waymark_packages ${packages})
  list(REMOVE_DUPLICATES modules)
  string(REPLACE ";" " " requires "${modules}")
  get_target_property(library ${target} OUTPUT_NAME)
  if(NOT library)
    set(library ${target})
  endif()

  install(TARGETS ${target} EXPORT WaymarkTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(DIRECTORY ${headers}/waymark DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")

  # Our library is static: what it stands on is linked with it, so `Requires` and not `Requires.private`. The prefix is
  # found from the file's own place, because `cmake --install --prefix` may move it.
  set(pkgconfig ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
  file(RELATIVE_PATH up ${CMAKE_INSTALL_PREFIX}/${pkgconfig} ${CMAKE_INSTALL_PREFIX})
  file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/${module}.pc @ONLY CONTENT [[
prefix=${pcfiledir}/@up@
libdir=${prefix}/@CMAKE_INSTALL_LIBDIR@
includedir=${prefix}/@CMAKE_INSTALL_INCLUDEDIR@

Name: @module@
Description: @description@
Version: @PROJECT_VERSION@
Requires: @requires@
Libs: -L${libdir} -l@library@ -pthread
Cflags: -I${includedir} -pthread
]])
  install(FILES ${PROJECT_BINARY_DIR}/${module}.pc DESTINATION ${pkgconfig})
endfunction()

if(NOT TARGET waymark_sdk)
  return()
endif()
waymark_install(waymark_sdk sdk/include waymark "Observability for workflow runners: traces and logs that outlive a crash")
if(TARGET waymark_runner)
  waymark_install(waymark_runner runner/include waymark-runner "A task runner that Waymark instruments")
endif()
if(TARGET waymark)
  install(TARGETS waymark RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/Waymark)
get_property(packages GLOBAL PROPERTY waymark_packages)
list(REMOVE_DUPLICATES packages)
list(TRANSFORM packages REPLACE "(.+)" "find_dependency(\\1)\n")
string(JOIN "" dependencies ${packages})
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/WaymarkConfig.cmake @ONLY CONTENT [[
include(CMakeFindDependencyMacro)
@dependencies@include("${CMAKE_CURRENT_LIST_DIR}/WaymarkTargets.cmake")
]])
write_basic_package_version_file(${PROJECT_BINARY_DIR}/WaymarkConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/WaymarkConfig.cmake ${PROJECT_BINARY_DIR}/WaymarkConfigVersion.cmake
  DESTINATION ${package_folder})
install(EXPORT WaymarkTargets NAMESPACE Waymark:: DESTINATION ${package_folder})
