# Warnings and sanitizers for every target of ours, and the two functions that declare a room and a room's tests.

add_library(waymark_flags INTERFACE)
target_compile_definitions(waymark_flags INTERFACE WAYMARK_VERSION="${PROJECT_VERSION}")
target_compile_options(waymark_flags INTERFACE -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion)
# GCC 12 takes `"text" + string` for overlapping copies where it inlines (its bug 105651, mended in 13).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(waymark_flags INTERFACE -Wno-restrict)
endif()
if(WAYMARK_SANITIZE)
  target_compile_options(waymark_flags INTERFACE -fsanitize=${WAYMARK_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(waymark_flags INTERFACE -fsanitize=${WAYMARK_SANITIZE})
endif()

# What is tested is optimised, the tests are not: they take half as long to compile.
add_library(waymark_test_flags INTERFACE)
target_link_libraries(waymark_test_flags INTERFACE waymark_flags)
target_compile_options(waymark_test_flags INTERFACE -O0 -g1)

# waymark_room(NAME [DEPENDS room...] [LIBRARIES lib...]): sdk/src/NAME/*.cpp as the static library room_NAME.
function(waymark_room name)
  cmake_parse_arguments(arg "" "" "DEPENDS;LIBRARIES" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/src/${name}/*.cpp)
  if(NOT sources)
    return()
  endif()
  add_library(room_${name} STATIC ${sources})
  target_include_directories(room_${name} PUBLIC ${CMAKE_CURRENT_SOURCE_DIR}/include ${CMAKE_CURRENT_SOURCE_DIR}/src)
  target_link_libraries(room_${name} PRIVATE waymark_flags PUBLIC ${arg_LIBRARIES} Threads::Threads)
  # What belongs to a thread is looked at several times a span: without a call, also in a shared library. All of it is 360
  # bytes, of the 512 that the C library has ready for libraries that are loaded while the program runs.
  target_compile_options(room_${name} PRIVATE -ftls-model=initial-exec)
  foreach(room ${arg_DEPENDS})
    if(TARGET room_${room})
      target_link_libraries(room_${name} PUBLIC room_${room})
    endif()
  endforeach()
  set_property(GLOBAL APPEND PROPERTY waymark_rooms room_${name})
  set_property(GLOBAL APPEND PROPERTY waymark_room_libraries ${arg_LIBRARIES})
endfunction()

# waymark_test(FOLDER LIBRARIES lib...): tests/FOLDER/*_test.cpp as the program FOLDER_test (slashes become _).
function(waymark_test folder)
  cmake_parse_arguments(arg "" "" "LIBRARIES" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${folder}/*_test.cpp)
  if(NOT sources)
    return()
  endif()
  # ThreadSanitizer makes system calls before it can bear that somebody else's function answers them.
  if(WAYMARK_SANITIZE MATCHES thread)
    list(FILTER sources EXCLUDE REGEX "/disk[a-z_]*_test.cpp$")
  endif()
  string(REPLACE "/" "_" name ${folder})
  add_executable(${name}_test ${sources})
  target_include_directories(${name}_test PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_link_libraries(${name}_test PRIVATE waymark_test_flags ${arg_LIBRARIES} GTest::gmock GTest::gtest GTest::gtest_main)
  target_compile_definitions(${name}_test PRIVATE
    WAYMARK_SOURCE_DIR="${PROJECT_SOURCE_DIR}" WAYMARK_BINARY_DIR="${PROJECT_BINARY_DIR}")
  gtest_discover_tests(${name}_test DISCOVERY_MODE PRE_TEST TEST_PREFIX ${name}/ PROPERTIES TIMEOUT 300 LABELS ${name})
endfunction()
