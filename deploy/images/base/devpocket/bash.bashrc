case $- in *i*) ;; *) return ;; esac
shopt -s checkwinsize
PS1='\[\e[32m\]\u@\h\[\e[0m\]:\[\e[34m\]\w\[\e[0m\]\$ '
