"The command nntrain."
