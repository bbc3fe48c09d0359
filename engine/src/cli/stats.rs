//! `stats`: what containers use, as a table that is drawn again each second.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::output;
use crate::engine::{Container, Engine, Usage};
use crate::error::Result;
use crate::id::ContainerId;
use crate::quantity::ByteSize;

/// The flags of `stats`.
#[derive(Debug, Args)]
pub(super) struct StatsArgs {
    #[command(flatten)]
    shown: Shown,
    /// Names or ids; all that run when there is none
    #[arg(value_name = "CONTAINER")]
    names: Vec<String>,
}

/// How what is used is shown, whichever containers it is about.
#[derive(Debug, Args)]
pub struct Shown {
    /// Those that do not run too
    #[arg(short, long)]
    all: bool,
    /// table, json, or a template
    #[arg(long)]
    format: Option<String>,
    /// Only once
    #[arg(long)]
    no_stream: bool,
    /// Print values whole
    #[arg(long)]
    no_trunc: bool,
}

/// Whether a container is looked at.
type Choice<'a> = &'a dyn Fn(&Container) -> bool;

const COLUMNS: [(&str, &str); 8] = [
    ("CONTAINER ID", "ID"),
    ("NAME", "Name"),
    ("CPU %", "CPUPerc"),
    ("MEM USAGE / LIMIT", "MemUsage"),
    ("MEM %", "MemPerc"),
    ("NET I/O", "NetIO"),
    ("BLOCK I/O", "BlockIO"),
    ("PIDS", "PIDs"),
];

/// The time between two looks. The share of a processor is that of this time.
const TURN: Duration = Duration::from_secs(1);

/// What was used at the last look.
type Earlier = BTreeMap<ContainerId, Usage>;

/// Shows what containers use.
pub(super) fn stats(engine: &Engine, args: &StatsArgs) -> Result<u8> {
    if !engine.counts_usage() {
        output::warning(
            "processor time, memory and processes are not counted: this engine has been given no control groups",
        );
    }
    // A name that is none is refused before anything is shown.
    let wanted: Vec<ContainerId> =
        args.names.iter().map(|name| engine.find_id(name)).collect::<Result<_>>()?;
    let alive = |container: &Container| args.shown.all || container.state.is_running();
    let named = |container: &Container| wanted.contains(container.id());
    if wanted.is_empty() { show(engine, &args.shown, &alive) } else { show(engine, &args.shown, &named) }
}

/// Shows what the chosen containers use, once or until nobody looks any more.
///
/// # Errors
/// When a container's usage cannot be read, or the format is not one.
pub fn show(engine: &Engine, shown: &Shown, choice: Choice<'_>) -> Result<u8> {
    let (mut earlier, _) = look(engine, shown, choice, &Earlier::new())?;
    loop {
        // The share of a processor needs two looks.
        std::thread::sleep(TURN);
        let (now, rows) = look(engine, shown, choice, &earlier)?;
        let text = output::rows_text(shown.format.as_deref(), &COLUMNS, &rows)?;
        if shown.no_stream {
            output::raw(text.as_bytes());
            return Ok(0);
        }
        if !output::redraw(&text) {
            return Ok(0);
        }
        earlier = now;
    }
}

fn look(
    engine: &Engine,
    shown: &Shown,
    choice: Choice<'_>,
    earlier: &Earlier,
) -> Result<(Earlier, Vec<Value>)> {
    let (mut now, mut rows) = (Earlier::new(), Vec::new());
    for container in engine.containers()?.iter().filter(|container| choice(container)) {
        let usage = engine.usage(container)?;
        rows.push(row(container, usage.as_ref(), earlier.get(container.id()), shown.no_trunc));
        now.extend(usage.map(|usage| (container.id().clone(), usage)));
    }
    Ok((now, rows))
}

impl Shown {
    /// Whether containers that do not run are shown too.
    pub fn shows_all(&self) -> bool {
        self.all
    }
}

fn row(container: &Container, usage: Option<&Usage>, earlier: Option<&Usage>, whole: bool) -> Value {
    let id = if whole { container.id().as_str() } else { container.id().short() };
    let pair = |one: u64, other: u64| format!("{} / {}", ByteSize(one), ByteSize(other));
    let memory = |usage: &Usage| {
        format!("{} / {}", ByteSize(usage.memory).binary(), ByteSize(usage.memory_limit).binary())
    };
    let percent = match (usage, earlier) {
        (Some(now), Some(earlier)) => now.cpu_percent_since(earlier),
        _ => 0.0,
    };
    let share = usage.filter(|usage| usage.memory_limit > 0);
    let share = share.map_or(0.0, |usage| usage.memory as f64 / usage.memory_limit as f64 * 100.0);
    json!({
        "BlockIO": usage.map_or_else(|| pair(0, 0), |usage| pair(usage.read, usage.written)),
        "CPUPerc": format!("{percent:.2}%"),
        "Container": id,
        "ID": id,
        "MemPerc": format!("{share:.2}%"),
        "MemUsage": usage.map_or_else(|| pair(0, 0), memory),
        "Name": container.name().as_str(),
        "NetIO": usage.map_or_else(|| pair(0, 0), |usage| pair(usage.received, usage.sent)),
        "PIDs": usage.map_or(0, |usage| usage.pids).to_string(),
    })
}
