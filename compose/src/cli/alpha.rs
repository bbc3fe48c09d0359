//! `alpha`: what docker compose offers under that name. `viz` draws the services as a graph for graphviz.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use engine::cli::lazy::Below;

use super::failure::CliError;
use super::publish::{self, PublishArgs};
use super::session::{Session, Wanted};
use crate::desired::{Changes, Desired};
use crate::model::{Port, Project, Service};
use crate::output;

/// The verbs of `alpha`.
pub(super) type AlphaArgs = Below<AlphaCommand>;

/// The verbs of `alpha`.
#[derive(Debug, Subcommand)]
pub(super) enum AlphaCommand {
    /// Write the services and what they depend on as a graph that graphviz draws: … | dot -Tsvg
    Viz(VizArgs),
    /// The same as `rcompose publish`
    Publish(PublishArgs),
}

/// The flags of `viz`.
#[derive(Debug, Args)]
pub(super) struct VizArgs {
    /// Show the image of each service
    #[arg(long)]
    image: bool,
    /// Show the networks of each service
    #[arg(long)]
    networks: bool,
    /// Show the published ports of each service
    #[arg(long)]
    ports: bool,
    /// How many tabs or spaces a line is indented by
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    indentation_size: u16,
    /// Indent with spaces and not with tabs
    #[arg(long)]
    spaces: bool,
}

/// `alpha`.
pub(super) fn alpha(session: &Session, args: &AlphaArgs) -> Result<u8, CliError> {
    match &args.verb {
        AlphaCommand::Viz(args) => {
            let project = session.load(&Wanted::default())?;
            let changes = Changes { separator: session.separator(), ..Changes::default() };
            let desired = Desired::of(&project, &changes);
            output::line(&graph(&project, &desired, args));
            Ok(0)
        }
        AlphaCommand::Publish(args) => publish::publish(session, args),
    }
}

fn graph(project: &Project, desired: &Desired, args: &VizArgs) -> String {
    let unit = if args.spaces { " " } else { "\t" };
    let indent = unit.repeat(usize::from(args.indentation_size));
    let mut out = String::new();
    // Writing to a text cannot fail.
    let _ = writeln!(out, "digraph {} {{\n{indent}layout=dot;", quoted(&project.name));
    for (name, service) in &project.services {
        let image = desired.services.get(name).map_or("", |service| service.image.name.as_str());
        let label = label(name, service, image, args);
        let _ = writeln!(out, "{indent}{} [style=\"filled\" label=<{label}>];", quoted(name));
    }
    out.push('\n');
    for (name, service) in &project.services {
        for dependency in service.depends_on.keys() {
            let _ = writeln!(out, "{indent}{} -> {};", quoted(name), quoted(dependency));
        }
    }
    out + "}"
}

fn label(name: &str, service: &Service, image: &str, args: &VizArgs) -> String {
    let mut label = format!("<font point-size=\"15\">{}</font>", escaped(name));
    let mut part = |title: &str, lines: Vec<String>| {
        let lines: Vec<String> = lines.iter().map(|line| format!("<br/>{}", escaped(line))).collect();
        let lines = lines.concat();
        let _ = write!(label, "<font point-size=\"10\"><br/><br/><b>{title}:</b>{lines}</font>");
    };
    if args.networks && !service.networks.is_empty() {
        part("Networks", service.networks.keys().cloned().collect());
    }
    if args.ports && !service.ports.is_empty() {
        part("Ports", service.ports.iter().map(port).collect());
    }
    if args.image {
        part("Image", vec![image.to_owned()]);
    }
    label
}

fn port(port: &Port) -> String {
    let address = port.host_ip.as_ref().map(|address| format!("{address}:")).unwrap_or_default();
    let published = port.published.as_deref().unwrap_or_default();
    let mode = port.mode.as_deref().unwrap_or("ingress");
    format!("{address}{published}:{} ({}, {mode})", port.target, port.protocol)
}

/// A text as a name in the language of graphs.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A text inside of a label that is written as HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
