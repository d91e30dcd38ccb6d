# Turns a text file into a C array that ends with NUL, at build time: cmake -DIN=… -DOUT=… -DNAME=… -P embed.cmake
file(READ ${IN} bytes HEX)
string(REGEX REPLACE "(................................)" "\\1\n" bytes "${bytes}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
get_filename_component(source ${IN} NAME)
file(WRITE ${OUT} "// Made of ${source}.\nextern const char ${NAME}[];\nconst char ${NAME}[] = {\n${bytes}\n0};\n")
