# Completes the words of memlimits in fish. Printed by: memlimits completion fish

function __memlimits_ask
    set -l words (commandline -opc)
    set -l memlimits (string replace -r '^~' $HOME -- $words[1])
    $memlimits _names $argv 2>/dev/null
end

# Print which command's words are being written, such as "pool create"; "program" where they are
# those of the program that is run.
function __memlimits_command
    set -l words (commandline -opc)
    set -l command
    set -l value
    for word in $words[2..-1]
        if test -n "$value"
            if contains -- $value -m -c
                echo program
                return
            end
            set value
        else if test -z "$command"
            string match -q -- '-*' $word; or set command $word
        else if test "$command" = run
            if contains -- $word --memory-limit --pool --count --cache-limit --wired-limit --policy --timeout --govern --holders --record --report -X -W -m -c
                set value $word
            else if contains -- $word - --; or not string match -q -- '-*' $word
                echo program
                return
            end
        else if test "$command" = pool; and contains -- $word create list set remove
            set command "pool $word"
        end
    end
    echo "$command"
end

complete -c memlimits -f
complete -c memlimits -n 'test (__memlimits_command) = program' -F
complete -c memlimits -n 'test "$(__memlimits_command)" = ""' -a run -d 'run a program inside memory limits'
complete -c memlimits -n 'test "$(__memlimits_command)" = ""' -a top -d 'show what processes and pools hold, live'
complete -c memlimits -n 'test "$(__memlimits_command)" = ""' -a pool -d 'make, show, change and remove budgets that processes share'
complete -c memlimits -n 'test "$(__memlimits_command)" = ""' -a convert -d 'make a report, a flame graph, a trace or a table of a recording'
complete -c memlimits -n 'test "$(__memlimits_command)" = ""' -a plot -d 'draw a recording, for papers and slides'
complete -c memlimits -n 'test "$(__memlimits_command)" = ""' -a info -d 'show the device, the limits and the counters'
complete -c memlimits -n 'test "$(__memlimits_command)" = ""' -a metrics -d 'show pools as metrics for Prometheus, or serve them'
complete -c memlimits -n 'test "$(__memlimits_command)" = ""' -a man -d 'show a manual page, or write all of them into a folder'
complete -c memlimits -n 'test "$(__memlimits_command)" = ""' -a completion -d 'print what has a shell complete this command\'s words'
complete -c memlimits -n 'test "$(__memlimits_command)" = ""' -s h -l help -d 'show the commands'
complete -c memlimits -n 'test "$(__memlimits_command)" = ""' -l version -d 'show the version'
complete -c memlimits -n 'test "$(__memlimits_command)" = "run"' -l memory-limit -r -f -d 'the most memory to hold, for all processes of the program together'
complete -c memlimits -n 'test "$(__memlimits_command)" = "run"' -l per-process -d 'the memory limit is each process\'s own'
complete -c memlimits -n 'test "$(__memlimits_command)" = "run"' -l pool -r -f -a '(__memlimits_ask pools)' -d 'all processes of the program join this pool'
complete -c memlimits -n 'test "$(__memlimits_command)" = "run"' -l count -r -f -a 'given resident process' -d 'what the memory limit is on'
complete -c memlimits -n 'test "$(__memlimits_command)" = "run"' -l cache-limit -r -f -d 'the most memory to keep for reuse'
complete -c memlimits -n 'test "$(__memlimits_command)" = "run"' -l wired-limit -r -f -d 'the most memory to keep from being swapped out'
complete -c memlimits -n 'test "$(__memlimits_command)" = "run"' -l policy -r -f -a 'guideline strict wait' -d 'at the memory limit'
complete -c memlimits -n 'test "$(__memlimits_command)" = "run"' -l timeout -r -f -d 'seconds to wait with --policy wait'
complete -c memlimits -n 'test "$(__memlimits_command)" = "run"' -l govern -r -f -a 'numpy python all' -d 'what counts'
complete -c memlimits -n 'test "$(__memlimits_command)" = "run"' -l holders -r -f -d 'note who allocates each block of SIZE and more, and one in SIZE of shorter ones, such as 1MiB'
complete -c memlimits -n 'test "$(__memlimits_command)" = "run"' -l record -r -F -d 'record who holds how much, and when, in all processes of the program, for memlimits plot and convert'
complete -c memlimits -n 'test "$(__memlimits_command)" = "run"' -l report -r -F -d 'write the closing report to this file as well'
complete -c memlimits -n 'test "$(__memlimits_command)" = "run"' -l quiet -d 'nothing of ours on standard error'
complete -c memlimits -n 'test "$(__memlimits_command)" = "run"' -s h -l help -d 'show this and exit'
complete -c memlimits -n 'test "$(__memlimits_command)" = "run"' -s X -x -d 'of Python'
complete -c memlimits -n 'test "$(__memlimits_command)" = "run"' -s W -x -d 'of Python'
complete -c memlimits -n 'test "$(__memlimits_command)" = "run"' -s m -x -d 'of Python'
complete -c memlimits -n 'test "$(__memlimits_command)" = "run"' -s c -x -d 'of Python'
complete -c memlimits -n 'test "$(__memlimits_command)" = "run"' -F
complete -c memlimits -n 'test "$(__memlimits_command)" = "top"' -s h -l help -d 'show this help message and exit'
complete -c memlimits -n 'test "$(__memlimits_command)" = "top"' -f -a '(__memlimits_ask pids pools)'
complete -c memlimits -n 'test "$(__memlimits_command)" = "top"' -l pool -r -f -a '(__memlimits_ask pools)' -d 'a pool, also one whose name is a number, as a PID is'
complete -c memlimits -n 'test "$(__memlimits_command)" = "top"' -l once -d 'print a plain table, and end'
complete -c memlimits -n 'test "$(__memlimits_command)" = "top"' -l json -d 'the same as JSON'
complete -c memlimits -n 'test "$(__memlimits_command)" = "top"' -l interval -r -f -d 'seconds from one look to the next'
complete -c memlimits -n 'test "$(__memlimits_command)" = "top"' -l sort -r -f -a 'pid user footprint of_limit active idle peak resident wired held refusals waits state waiting_for command' -d 'what comes first'
complete -c memlimits -n 'test "$(__memlimits_command)" = "pool"' -a create -d 'Make a pool.'
complete -c memlimits -n 'test "$(__memlimits_command)" = "pool"' -a list -d 'Show pools, and who is in them.'
complete -c memlimits -n 'test "$(__memlimits_command)" = "pool"' -a set -d 'Change a pool\'s limit.'
complete -c memlimits -n 'test "$(__memlimits_command)" = "pool"' -a remove -d 'Remove a pool without members.'
complete -c memlimits -n 'test "$(__memlimits_command)" = "pool"' -s h -l help -d 'show this help message and exit'
complete -c memlimits -n 'test "$(__memlimits_command)" = "pool create"' -s h -l help -d 'show this help message and exit'
complete -c memlimits -n 'test "$(__memlimits_command)" = "pool create"' -f
complete -c memlimits -n 'test "$(__memlimits_command)" = "pool create"' -l limit -r -f -d 'for all members together'
complete -c memlimits -n 'test "$(__memlimits_command)" = "pool create"' -l wired-limit -r -f -d 'of what they wire'
complete -c memlimits -n 'test "$(__memlimits_command)" = "pool create"' -l everybody -d 'processes of other users may join, and could damage it'
complete -c memlimits -n 'test "$(__memlimits_command)" = "pool list"' -s h -l help -d 'show this help message and exit'
complete -c memlimits -n 'test "$(__memlimits_command)" = "pool list"' -f -a '(__memlimits_ask pools)'
complete -c memlimits -n 'test "$(__memlimits_command)" = "pool list"' -l json -d 'as JSON'
complete -c memlimits -n 'test "$(__memlimits_command)" = "pool set"' -s h -l help -d 'show this help message and exit'
complete -c memlimits -n 'test "$(__memlimits_command)" = "pool set"' -f -a '(__memlimits_ask pools)'
complete -c memlimits -n 'test "$(__memlimits_command)" = "pool set"' -l limit -r -f -d 'for all members together'
complete -c memlimits -n 'test "$(__memlimits_command)" = "pool remove"' -s h -l help -d 'show this help message and exit'
complete -c memlimits -n 'test "$(__memlimits_command)" = "pool remove"' -f -a '(__memlimits_ask pools)'
complete -c memlimits -n 'test "$(__memlimits_command)" = "convert"' -s h -l help -d 'show this help message and exit'
complete -c memlimits -n 'test "$(__memlimits_command)" = "convert"' -F
complete -c memlimits -n 'test "$(__memlimits_command)" = "convert"' -l to -r -f -a 'html flamegraph folded viz perfetto csv arrow parquet' -d 'what to make'
complete -c memlimits -n 'test "$(__memlimits_command)" = "convert"' -s o -l output -r -F -d 'the file to make, or - for standard output'
complete -c memlimits -n 'test "$(__memlimits_command)" = "convert"' -l force -d 'replace a file that is there'
complete -c memlimits -n 'test "$(__memlimits_command)" = "convert"' -l at -r -f -d 'of which time'
complete -c memlimits -n 'test "$(__memlimits_command)" = "convert"' -l table -r -f -a 'samples pool holders refusals processes' -d 'which table'
complete -c memlimits -n 'test "$(__memlimits_command)" = "plot"' -s h -l help -d 'show this help message and exit'
complete -c memlimits -n 'test "$(__memlimits_command)" = "plot"' -F
complete -c memlimits -n 'test "$(__memlimits_command)" = "plot"' -s o -l output -r -F -d 'ends in .png, .svg or .pdf'
complete -c memlimits -n 'test "$(__memlimits_command)" = "plot"' -l force -d 'replace a file that is there'
complete -c memlimits -n 'test "$(__memlimits_command)" = "plot"' -l title -r -f -d 'above the picture'
complete -c memlimits -n 'test "$(__memlimits_command)" = "plot"' -l width -r -f -d '7 unless given'
complete -c memlimits -n 'test "$(__memlimits_command)" = "plot"' -l height -r -f -d 'half of the width and a little'
complete -c memlimits -n 'test "$(__memlimits_command)" = "plot"' -l dpi -r -f -d 'of a .png'
complete -c memlimits -n 'test "$(__memlimits_command)" = "plot"' -l process -r -f -d 'of one process alone'
complete -c memlimits -n 'test "$(__memlimits_command)" = "info"' -s h -l help -d 'show this help message and exit'
complete -c memlimits -n 'test "$(__memlimits_command)" = "info"' -l all -d 'counters that are 0, too'
complete -c memlimits -n 'test "$(__memlimits_command)" = "info"' -l json -d 'all of it, as JSON'
complete -c memlimits -n 'test "$(__memlimits_command)" = "metrics"' -s h -l help -d 'show this help message and exit'
complete -c memlimits -n 'test "$(__memlimits_command)" = "metrics"' -f -a '(__memlimits_ask pools)'
complete -c memlimits -n 'test "$(__memlimits_command)" = "metrics"' -l port -r -f -d 'serve them there, instead of printing them'
complete -c memlimits -n 'test "$(__memlimits_command)" = "metrics"' -l address -r -f -d 'listen there'
complete -c memlimits -n 'test "$(__memlimits_command)" = "metrics"' -l by-process -d 'series of its own for each process, with its pid'
complete -c memlimits -n 'test "$(__memlimits_command)" = "metrics"' -l dashboard -d 'print a dashboard for Grafana, as JSON'
complete -c memlimits -n 'test "$(__memlimits_command)" = "metrics"' -l rules -d 'print alerting rules for Prometheus, as YAML'
complete -c memlimits -n 'test "$(__memlimits_command)" = "man"' -s h -l help -d 'show this help message and exit'
complete -c memlimits -n 'test "$(__memlimits_command)" = "man"' -f -a 'run top pool convert plot info metrics man completion'
complete -c memlimits -n 'test "$(__memlimits_command)" = "man"' -l into -r -f -a '(__fish_complete_directories)' -d 'write all pages there, memlimits.1 and so on'
complete -c memlimits -n 'test "$(__memlimits_command)" = "completion"' -s h -l help -d 'show this help message and exit'
complete -c memlimits -n 'test "$(__memlimits_command)" = "completion"' -f -a 'bash zsh fish'
