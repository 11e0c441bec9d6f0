# SPDX-License-Identifier: Apache-2.0
# bash completion of cgnetctl; install as /usr/share/bash-completion/completions/cgnetctl

_cgnetctl_subjects() {
    command -v systemctl >/dev/null || return 0
    systemctl list-units --no-legend --plain --all --type=service,scope,slice "$1*" 2>/dev/null | cut -d' ' -f1
}

_cgnetctl() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
    local verbs='check explain status events diff reload flush version' common='--json --control-socket --config --help'
    local verb='' hook='' position=0 i word
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        case $word in
            --control-socket | --config | --policy-dir | --pin-dir | --cgroup-root | --default-action | -n | --lines) ((i++)) ;;
            -*) ;;
            *)
                if [[ -z $verb ]]; then verb=$word; else ((++position)); fi
                ((position == 2)) && hook=$word
                ;;
        esac
    done
    COMPREPLY=()
    case $prev in
        --control-socket | --config) mapfile -t COMPREPLY < <(compgen -f -- "$cur") && return ;;
        --policy-dir | --pin-dir | --cgroup-root) mapfile -t COMPREPLY < <(compgen -d -- "$cur") && return ;;
        --default-action) mapfile -t COMPREPLY < <(compgen -W 'allow deny' -- "$cur") && return ;;
        -n | --lines) return ;;
    esac
    local words=$common
    case $verb:$position in
        :*) [[ $cur == -* ]] || words=$verbs ;;
        check:*) [[ $cur == -* ]] || { mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return; } ;;
        events:*) words+=' --follow --lines -f -n' ;;
        diff:*) words+=' --policy-dir' ;;
        flush:*) words+=' --pin-dir' ;;
        explain:0) [[ $cur == -* ]] || words=$(_cgnetctl_subjects "$cur") ;;
        explain:1) words='connect sendmsg bind post_bind socket create' ;;
        explain:2)
            words='tcp udp udplite sctp icmp other mptcp'
            case $hook in
                create) words=$(printf '%s ' {inet,inet6}/{stream,dgram,raw,other}) ;;
                socket) words+=' raw' ;;
                connect | sendmsg) words+=' unix' ;;
            esac
            ;;
        explain:3) [[ $cur == /* ]] && { mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return; } ;;
        explain:*) words+=' --policy-dir --default-action --cgroup-root --v6-only' ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -F _cgnetctl cgnetctl
