# SPDX-License-Identifier: Apache-2.0
# Faults for test_attention_faults.c: copies of the attention kernels in which planted(N) switches fault N on. If OLD does not occur exactly once in a
# source, CMake fails: the list must be kept up to date with the kernels.
set(faults_dir ${CMAKE_CURRENT_BINARY_DIR}/attention_faults)
set(faults_n 0)
set(faults_list "")
foreach(name attention attention_mma)
	file(READ ${CMAKE_SOURCE_DIR}/common/engine/kernels/cuda/${name}.cu faults_${name})
	set(faults_${name} "extern \"C\" int planted(int fault);\n${faults_${name}}")
	set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/common/engine/kernels/cuda/${name}.cu)
endforeach()

# plant(SOURCE NAME REPORT OLD NEW): in NEW, PLANTED is the switch. REPORT: a part of the emulation's report, "cuda_emu: " where it depends on the
# order of threads; "": wrong results.
macro(plant SOURCE NAME REPORT OLD NEW)
	string(FIND "${faults_${SOURCE}}" "${OLD}" first)
	string(FIND "${faults_${SOURCE}}" "${OLD}" last REVERSE)
	if(first EQUAL -1 OR NOT first EQUAL last)
		message(FATAL_ERROR "fault \"${NAME}\": expected its place once in ${SOURCE}.cu: ${OLD}")
	endif()
	string(REPLACE "PLANTED" "planted(${faults_n})" new "${NEW}")
	string(REPLACE "${OLD}" "${new}" faults_${SOURCE} "${faults_${SOURCE}}")
	string(FIND "${SOURCE}" "mma" bf16)
	if(bf16 EQUAL -1)
		string(APPEND faults_list "FAULT(\"fp32: ${NAME}\", \"${REPORT}\", KERNELS_DTYPE_FP32)\n")
	else()
		string(APPEND faults_list "FAULT(\"bf16: ${NAME}\", \"${REPORT}\", KERNELS_DTYPE_BF16)\n")
	endif()
	math(EXPR faults_n "${faults_n} + 1")
endmacro()

plant(attention_mma "no barrier before keys are read" "without a barrier"
    "__syncthreads();			/* keys are loaded" "if (!PLANTED) __syncthreads();	/* keys are loaded")
plant(attention_mma "no wait for values" "nobody has written"
    "cp_wait<0>();
		__syncthreads();			/* values" "if (!PLANTED) cp_wait<0>();
		__syncthreads();			/* values")
plant(attention_mma "no barrier before values are read" "without a barrier"
    "__syncthreads();			/* values are loaded" "if (!PLANTED) __syncthreads();	/* values are loaded")
plant(attention_mma "rows behind the end are loaded" "outside every allocation"
    "if (row < n && c < d && x.wide)" "if ((row < n || PLANTED) && c < d && x.wide)")
plant(attention_mma "rows behind the end are stored" "cuda_emu: "
    "if (row[half] >= n)
			continue;
		store_row<D>" "if (row[half] >= n && !PLANTED)
			continue;
		store_row<D>")
plant(attention_mma "a query does not see itself" "" "i % 2 > to ||" "i % 2 + PLANTED > to ||")
plant(attention_mma "a query sees other documents" "" "i / 2 * 8 + i % 2 < from)" "(i / 2 * 8 + i % 2 < from && !PLANTED))")
plant(attention_mma "sums are not scaled to a new maximum" "" "factor = exp2f(fmaf(top[half], LOG2E, -base));"
    "factor = PLANTED ? 1 : exp2f(fmaf(top[half], LOG2E, -base));")
plant(attention_mma "backward: no barrier" "without a barrier"
    "cp_wait<0>();
			__syncthreads();
" "cp_wait<0>();
			if (!PLANTED) __syncthreads();
")
plant(attention_mma "backward: the next tile over the one that is read" "without a barrier"
    "loaded = STAGES == 1 ? 0 : stage" "loaded = STAGES == 1 ? 0 : stage ^ (i >= 0 && PLANTED)")
plant(attention_mma "backward: no barrier before the only tile is loaded again" "without a barrier"
    "__syncthreads();		/* step i is no longer read" "if (!PLANTED) __syncthreads();	/* step i is no longer read")
plant(attention_mma "backward: a query sees keys behind it" "" "bool seen = key <= last &&" "bool seen = (key <= last || PLANTED) &&")
plant(attention_mma "backward: a query sees other documents" "" "key >= query.first;" "(key >= query.first || PLANTED);")
plant(attention_mma "backward: one query head of a key head" "" "steps = tiles * (keys ? a.group : 1)"
    "steps = tiles * (keys && !PLANTED ? a.group : 1)")
plant(attention_mma "backward: the slope of the soft cap is left out" "" "if (a.soft_cap > 0)
				CUDA" "if (a.soft_cap > 0 && !PLANTED)
				CUDA")
plant(attention_mma "backward: the second part of the columns is the first one" "written by two blocks"
    "column = keys ? (int)blockIdx.y * W : 0" "column = keys && !PLANTED ? (int)blockIdx.y * W : 0")
plant(attention "no barrier before weights are read" "without a barrier"
    "__syncthreads();
		CUDA_UNROLL" "if (!PLANTED) __syncthreads();
		CUDA_UNROLL")
plant(attention "a window has one key more" "" "at >= first ?" "at >= first - PLANTED ?")
plant(attention "backward: no barrier before weights are read" "without a barrier"
    "__syncthreads();
		add_weighted" "if (!PLANTED) __syncthreads();
		add_weighted")
plant(attention "backward: rows behind the end are loaded" "outside every allocation" "= row < n ? from[c] : 0;" "= row < n || PLANTED ? from[c] : 0;")

foreach(name attention attention_mma)
	file(CONFIGURE OUTPUT ${faults_dir}/${name}.cu CONTENT "@faults_${name}@" @ONLY)
endforeach()
file(CONFIGURE OUTPUT ${faults_dir}/attention_faults.h CONTENT "@faults_list@" @ONLY)
