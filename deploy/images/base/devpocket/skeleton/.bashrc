case $- in *i*) ;; *) return ;; esac
HISTSIZE=5000
HISTFILESIZE=20000
HISTCONTROL=ignoredups
shopt -s histappend
alias ls='ls --color=auto' ll='ls -l' la='ls -la' grep='grep --color=auto'
