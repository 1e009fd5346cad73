# SPDX-License-Identifier: Apache-2.0
# module(NAME SOURCES a.c b.c [DEPENDS other ...] [PKG pkg-config-name ...] [LIBS lib ...])
#   Defines one module of common/ or of a daemon, the static library salt_NAME. DEPENDS names all modules that it
#   includes, so modules are linked exactly as the design's dependencies allow. PKG and LIBS are linked privately,
#   because only one module includes each external library.
function(module NAME)
	cmake_parse_arguments(M "" "" "SOURCES;DEPENDS;PKG;LIBS" ${ARGN})
	add_library(salt_${NAME} STATIC ${M_SOURCES})
	target_include_directories(salt_${NAME} PUBLIC ${CMAKE_SOURCE_DIR}/common ${CMAKE_SOURCE_DIR})
	client_code(salt_${NAME})
	foreach(dep IN LISTS M_DEPENDS)
		target_link_libraries(salt_${NAME} PUBLIC salt_${dep})
	endforeach()
	foreach(pkg IN LISTS M_PKG)
		string(MAKE_C_IDENTIFIER "PKG_${pkg}" id)
		pkg_check_modules(${id} REQUIRED IMPORTED_TARGET GLOBAL ${pkg})
		target_link_libraries(salt_${NAME} PRIVATE PkgConfig::${id})
	endforeach()
	if(M_LIBS)
		target_link_libraries(salt_${NAME} PRIVATE ${M_LIBS})
	endif()
endfunction()

# client_code(TARGET): code that becomes part of libsaltfleet.so is compiled as position-independent code, and its
#   symbols are hidden outside of the program or library that it is linked into. All other code, above all the
#   engine, is compiled as if there were no shared library.
function(client_code TARGET)
	file(RELATIVE_PATH folder ${CMAKE_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR})
	if(folder MATCHES "^(proto|client|common/(base|data|fabric))(/|$)")
		set_target_properties(${TARGET} PROPERTIES POSITION_INDEPENDENT_CODE ON C_VISIBILITY_PRESET hidden)
	endif()
endfunction()

# program(NAME SOURCES main.c DEPENDS module ...)
function(program NAME)
	cmake_parse_arguments(P "" "" "SOURCES;DEPENDS;LIBS" ${ARGN})
	add_executable(${NAME} ${P_SOURCES})
	foreach(dep IN LISTS P_DEPENDS)
		target_link_libraries(${NAME} PRIVATE salt_${dep})
	endforeach()
	if(P_LIBS)
		target_link_libraries(${NAME} PRIVATE ${P_LIBS})
	endif()
endfunction()

# tests/run.sh lets ctest run four tests for each processor, because most tests wait for other processes or
# for time to pass. A test that computes all the time counts as three (PROCESSORS ${SALT_TEST_COMPUTES}). With
# COST the longest tests begin first.
set(SALT_TEST_COMPUTES 3)

# unit_test(NAME [SOURCES x.c] DEPENDS module ... [TIMEOUT s]): builds test_NAME from test_NAME.c of the calling
#   folder. ctest runs it as FOLDER/NAME from the source root, so paths of fixtures are tests/golden/...
function(unit_test NAME)
	cmake_parse_arguments(T "" "TIMEOUT" "SOURCES;DEPENDS;LIBS" ${ARGN})
	get_filename_component(folder ${CMAKE_CURRENT_SOURCE_DIR} NAME)
	if(NOT T_SOURCES)
		set(T_SOURCES test_${NAME}.c)
	endif()
	add_executable(test_${folder}_${NAME} ${T_SOURCES})
	target_include_directories(test_${folder}_${NAME} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
	foreach(dep IN LISTS T_DEPENDS)
		target_link_libraries(test_${folder}_${NAME} PRIVATE salt_${dep})
	endforeach()
	if(T_LIBS)
		target_link_libraries(test_${folder}_${NAME} PRIVATE ${T_LIBS})
	endif()
	if(NOT T_TIMEOUT)
		set(T_TIMEOUT 120)
	endif()
	add_test(NAME ${folder}/${NAME} COMMAND test_${folder}_${NAME} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
	set_tests_properties(${folder}/${NAME} PROPERTIES TIMEOUT ${T_TIMEOUT} LABELS ${folder})
	if(folder STREQUAL "kernels")
		set_tests_properties(${folder}/${NAME} PROPERTIES PROCESSORS ${SALT_TEST_COMPUTES})
	endif()
endfunction()

# crash_points(FILE ...): enables the crash points of base/err/crash.h in these files of the calling folder,
# in builds with SALT_CRASH_POINTS.
function(crash_points)
	if(SALT_CRASH_POINTS)
		set_property(SOURCE ${ARGN} APPEND PROPERTY COMPILE_DEFINITIONS SALT_CRASH_POINTS)
	endif()
endfunction()
