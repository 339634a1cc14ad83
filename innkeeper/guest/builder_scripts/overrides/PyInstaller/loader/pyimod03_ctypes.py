"""Empty on purpose, in place of a module that loads ctypes.

PyInstaller does so at start, to look for libraries in the program's folder first.
/etc/ld.so.cache knows it.
"""
