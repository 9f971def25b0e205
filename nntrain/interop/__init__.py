"nntrain and other libraries."
