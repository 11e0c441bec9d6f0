# SPDX-License-Identifier: Apache-2.0
# fish completion of cgnetctl; install as /usr/share/fish/vendor_completions.d/cgnetctl.fish

set -l verbs check explain status events diff reload flush version

function __cgnetctl_explain_words --description 'how many words of explain are there already'
    set -l words (commandline -opc)
    set -l at (contains -i -- explain $words)
    or return 1
    test (count $words[$at..-1]) -eq $argv[1]
end

complete -c cgnetctl -l json -d 'answer in JSON'
complete -c cgnetctl -l control-socket -r -F -d 'where cgnetd listens'
complete -c cgnetctl -l config -r -F -d settings
complete -c cgnetctl -f -n "not __fish_seen_subcommand_from $verbs" -a check -d 'parse and compile policies'
complete -c cgnetctl -f -n "not __fish_seen_subcommand_from $verbs" -a explain -d 'the verdict for a call, and why'
complete -c cgnetctl -f -n "not __fish_seen_subcommand_from $verbs" -a status -d 'is it enforcing, and what'
complete -c cgnetctl -f -n "not __fish_seen_subcommand_from $verbs" -a events -d 'what is being denied and redirected'
complete -c cgnetctl -f -n "not __fish_seen_subcommand_from $verbs" -a diff -d 'what a reload would change'
complete -c cgnetctl -f -n "not __fish_seen_subcommand_from $verbs" -a reload -d 'put the policies of the files in force'
complete -c cgnetctl -f -n "not __fish_seen_subcommand_from $verbs" -a flush -d 'take all enforcement away'
complete -c cgnetctl -f -n "not __fish_seen_subcommand_from $verbs" -a version -d 'versions of both programs'
complete -c cgnetctl -F -n '__fish_seen_subcommand_from check'
complete -c cgnetctl -n '__fish_seen_subcommand_from events' -s f -l follow -d 'go on with new events'
complete -c cgnetctl -n '__fish_seen_subcommand_from events' -s n -l lines -x -d 'how many'
complete -c cgnetctl -n '__fish_seen_subcommand_from diff' -l policy-dir -r -F -d 'as if policies were there'
complete -c cgnetctl -n '__fish_seen_subcommand_from flush' -l pin-dir -r -F -d 'the pins to remove'
complete -c cgnetctl -n '__fish_seen_subcommand_from explain' -l policy-dir -r -F -d 'explain these files'
complete -c cgnetctl -n '__fish_seen_subcommand_from explain' -l default-action -x -a 'allow deny' -d 'when no policy decides'
complete -c cgnetctl -n '__fish_seen_subcommand_from explain' -l cgroup-root -r -F -d 'where units are looked up'
complete -c cgnetctl -n '__fish_seen_subcommand_from explain' -l v6-only -d 'the socket is IPv6 only'
complete -c cgnetctl -f -n '__cgnetctl_explain_words 1' -a '(__fish_systemctl_services 2>/dev/null)'
complete -c cgnetctl -f -n '__cgnetctl_explain_words 2' -a 'connect sendmsg bind post_bind socket create'
complete -c cgnetctl -f -n '__cgnetctl_explain_words 3' -a 'tcp udp udplite sctp icmp other mptcp raw unix inet/stream inet/dgram inet/raw inet/other inet6/stream inet6/dgram inet6/raw inet6/other'
