# Written by make manual.
_aca_tokend() {
  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} words
  COMPREPLY=()
  case $before in
    --log-format) COMPREPLY=($(compgen -W "auto json console" -- "$word")); return ;;
    --cert|--config|--key) COMPREPLY=($(compgen -f -- "$word")); return ;;
    --at|--endpoint|--for|--lifetime|--outage|--reader|--replicas|--seed|--url|--vault) return ;;
  esac
  if ((COMP_CWORD == 1)); then
    COMPREPLY=($(compgen -W "run check status resume simulate doctor policy schema demo --help --version" -- "$word"))
    return
  fi
  case ${COMP_WORDS[1]} in
    run) words="--help --config --log-format --once" ;;
    check) words="--help --config --log-format" ;;
    status) words="--help --config --log-format --watch --json --url --cert --key" ;;
    resume) words="--help --config --log-format" ;;
    simulate) words="--help --outage --config --log-format --endpoint --at --for --lifetime --replicas --seed --json" ;;
    doctor) words="--help --config --log-format --grant --json" ;;
    policy) words="--help --config --log-format --reader --vault" ;;
    schema) words="--help" ;;
    demo) words="--help --for" ;;
    *) return ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}
complete -o filenames -F _aca_tokend aca-tokend
