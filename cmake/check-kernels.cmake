# Reads what ptxas said (PTXAS) and fails if a hot kernel (HOT: one name a line) spills registers or has a stack frame on any
# architecture, if a name in that list is of no kernel, or if wgmma instructions were serialized anywhere. A number behind a name is
# how many bytes may be spilled: those of a variable that no inner loop uses.
cmake_minimum_required(VERSION 3.20)

file(STRINGS ${HOT} lines)
foreach(line IN LISTS lines)
  string(REGEX MATCH "^([^ ]+) ?([0-9]*)$" line "${line}")
  list(APPEND hot ${CMAKE_MATCH_1})
  set(spills_${CMAKE_MATCH_1} ${CMAKE_MATCH_2})
endforeach()
file(STRINGS ${PTXAS} lines REGEX "entry function|Function properties|stack frame|wgmma|C75")

foreach(line IN LISTS lines)
  if(line MATCHES "Compiling entry function '(.+)' for '(.+)'")
    list(APPEND compiled ${CMAKE_MATCH_1})
    set(architecture ${CMAKE_MATCH_2})
  elseif(line MATCHES "Function properties for (.+)")
    set(function ${CMAKE_MATCH_1})
  elseif(line MATCHES "wgmma.*serialized|C7508|C7510")
    list(APPEND problems "${line}")
  elseif(line MATCHES "([0-9]+) bytes stack frame, ([0-9]+) bytes spill stores" AND function IN_LIST hot)
    if(CMAKE_MATCH_2 GREATER "0${spills_${function}}" OR (CMAKE_MATCH_1 GREATER 0 AND CMAKE_MATCH_2 EQUAL 0))
      string(STRIP "${line}" line)
      list(APPEND problems "${function} for ${architecture}: ${line}")
    endif()
  endif()
endforeach()

foreach(kernel IN LISTS hot)
  if(NOT kernel IN_LIST compiled)
    list(APPEND problems "${kernel}: named in hot.txt, but no such kernel was compiled")
  endif()
endforeach()

if(problems)
  list(JOIN problems "\n  " problems)
  message(FATAL_ERROR "kernels that must be fast are not:\n  ${problems}")
endif()
