"""Empty on purpose: PyInstaller loads ctypes at start, to look for libraries in the program's folder first. /etc/ld.so.cache knows it."""
