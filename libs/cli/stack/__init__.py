"""The local stack: the processes of `devpocket up`, how they are started, watched, found again and ended."""
