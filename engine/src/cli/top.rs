//! `top`: the processes of a container, with the columns that options of ps(1) ask for.

use crate::cli::output;
use crate::engine::{Engine, Process};
use crate::error::{Error, Kind, Result};

/// A column: its head and what it says of a process.
type Column = (String, fn(&Process) -> String);

/// Shows the processes of a container.
pub(super) fn top(engine: &Engine, container: &str, options: &[String]) -> Result<u8> {
    show(&engine.top(&engine.find_id(container)?)?, options)?;
    Ok(0)
}

/// Prints processes in the columns that options of ps(1) ask for.
pub(super) fn show(processes: &[Process], options: &[String]) -> Result<()> {
    let columns = columns(options)?;
    let mut table = output::Table::new(columns.iter().map(|(head, _)| head.clone()));
    for process in processes {
        table.row(columns.iter().map(|(_, value)| value(process)));
    }
    table.print();
    Ok(())
}

/// The columns of `-ef`, `aux`, `-e`, or a list after `-o`.
fn columns(options: &[String]) -> Result<Vec<Column>> {
    let mut words = options.iter().flat_map(|option| option.split_whitespace());
    let mut preset: Option<&[&str]> = None;
    let mut chosen: Vec<Column> = Vec::new();
    while let Some(word) = words.next() {
        match word.trim_start_matches('-') {
            "ef" | "f" | "eF" => preset = Some(&FULL),
            "e" | "A" | "a" | "ax" => preset = preset.or(Some(&SHORT)),
            "aux" | "u" | "auxw" | "auxww" => preset = Some(&USER),
            "o" | "eo" | "axo" => {
                let list = words.next().ok_or_else(|| Error::invalid("top: -o needs a list of columns"))?;
                add(list, &mut chosen)?;
            }
            // A list right behind the letter: -opid,cmd.
            other if other.starts_with('o') && other.len() > 1 => add(&other[1..], &mut chosen)?,
            _ => {
                return Err(Error::new(
                    Kind::Unsupported,
                    format!("top: the option {word:?} of ps is not supported"),
                )
                .with_hint("-ef, aux, -e and -o pid,user,cmd,… are"));
            }
        }
    }
    if chosen.is_empty() {
        return preset.unwrap_or(&FULL).iter().map(|name| column(name)).collect();
    }
    if !chosen.iter().any(|(head, _)| head == "PID") {
        return Err(Error::invalid("top: the columns have no PID").with_hint("add pid to -o"));
    }
    Ok(chosen)
}

const FULL: [&str; 8] = ["uid=UID", "pid", "ppid", "c", "stime", "tname", "time", "cmd=CMD"];
const SHORT: [&str; 4] = ["pid", "tname", "time", "comm=CMD"];
const USER: [&str; 11] =
    ["user", "pid", "pcpu", "pmem", "vsz", "rss", "tname", "stat", "stime=START", "time", "args"];

fn add(list: &str, chosen: &mut Vec<Column>) -> Result<()> {
    for name in list.split(',').filter(|name| !name.is_empty()) {
        chosen.push(column(name)?);
    }
    Ok(())
}

/// One column by its name in ps, with another head behind `=`.
fn column(text: &str) -> Result<Column> {
    let (name, head) = text.split_once('=').map_or((text, None), |(name, head)| (name, Some(head)));
    let (known, value): (&str, fn(&Process) -> String) = match name {
        "pid" => ("PID", |process| process.pid.to_string()),
        "ppid" => ("PPID", |process| process.parent.to_string()),
        "user" | "euser" => ("USER", |process| process.user.clone()),
        // ps -f calls the name so.
        "uid" if head == Some("UID") => ("UID", |process| process.user.clone()),
        "uid" | "euid" => ("UID", |process| process.uid.clone()),
        "c" => ("C", |process| format!("{:.0}", process.cpu_percent)),
        "pcpu" | "%cpu" => ("%CPU", |process| format!("{:.1}", process.cpu_percent)),
        "pmem" | "%mem" => ("%MEM", |process| format!("{:.1}", process.memory_percent)),
        "vsz" | "vsize" => ("VSZ", |process| (process.virtual_memory / 1024).to_string()),
        "rss" | "rssize" => ("RSS", |process| (process.resident_memory / 1024).to_string()),
        "tname" | "tty" | "tt" => ("TTY", |process| process.terminal.clone()),
        "stat" | "s" | "state" => ("STAT", |process| process.state.clone()),
        "stime" | "start" | "start_time" => ("STIME", |process| process.started.clone()),
        "etime" => ("ELAPSED", |process| elapsed(process.elapsed)),
        "etimes" => ("ELAPSED", |process| process.elapsed.to_string()),
        "time" | "cputime" => ("TIME", |process| process.time.clone()),
        "ni" | "nice" => ("NI", |process| process.nice.to_string()),
        "nlwp" | "thcount" => ("NLWP", |process| process.threads.to_string()),
        "comm" | "ucmd" | "ucomm" => ("COMMAND", |process| process.name.clone()),
        "cmd" => ("CMD", |process| process.command.clone()),
        "args" | "command" => ("COMMAND", |process| process.command.clone()),
        _ => {
            return Err(Error::new(Kind::Unsupported, format!("top: the column {name:?} of ps is not supported"))
                .with_hint("pid, ppid, user, uid, pcpu, pmem, vsz, rss, tty, stat, stime, etime, time, ni, nlwp, comm, cmd and args are"));
        }
    };
    Ok((head.unwrap_or(known).to_owned(), value))
}

/// `[[days-]hours:]minutes:seconds`.
fn elapsed(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let rest = format!("{minutes:02}:{:02}", seconds % 60);
    match (days, hours) {
        (0, 0) => rest,
        (0, hours) => format!("{hours:02}:{rest}"),
        (days, hours) => format!("{days}-{hours:02}:{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_ps_choose_the_columns() {
        let heads = |options: &[&str]| {
            let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
            match columns(&options) {
                Ok(columns) => columns.into_iter().map(|(head, _)| head).collect::<Vec<_>>().join(" "),
                Err(error) => error.to_string(),
            }
        };
        assert_eq!(heads(&[]), "UID PID PPID C STIME TTY TIME CMD");
        assert_eq!(heads(&["-ef"]), heads(&[]));
        assert_eq!(heads(&["aux"]), "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND");
        assert_eq!(heads(&["-eo", "pid,user=WHO,comm"]), "PID WHO COMMAND");
        assert_eq!(heads(&["-o", "pid", "-o", "etime"]), "PID ELAPSED");
        assert_eq!(heads(&["-o", "cmd"]), "top: the columns have no PID");
        assert_eq!(heads(&["--forest"]), "top: the option \"--forest\" of ps is not supported");
        assert_eq!(heads(&["-o", "wchan"]), "top: the column \"wchan\" of ps is not supported");
        assert_eq!(elapsed(93_784), "1-02:03:04");
    }
}
