//! A build's events as lines of JSON in the shape of BuildKit's `SolveStatus`: `--progress rawjson`. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::builder::{BuildEvent, Stream, Vertex};
use crate::id::Digest;

/// The line of an event, if it has one.
pub fn line(event: &BuildEvent) -> Option<String> {
    let now = Timestamp::now().to_string();
    let value = match event {
        BuildEvent::Started { vertex, name } => {
            vertex_line(&json!({ "digest": id(*vertex), "name": name, "started": now }))
        }
        BuildEvent::Cached(vertex) => {
            vertex_line(&json!({ "digest": id(*vertex), "started": now, "completed": now, "cached": true }))
        }
        BuildEvent::Done { vertex, .. } => vertex_line(&json!({ "digest": id(*vertex), "completed": now })),
        BuildEvent::Failed { vertex, message } => {
            vertex_line(&json!({ "digest": id(*vertex), "completed": now, "error": message }))
        }
        BuildEvent::CalledOff(vertex) => {
            vertex_line(&json!({ "digest": id(*vertex), "completed": now, "error": "context canceled" }))
        }
        BuildEvent::Output { vertex, stream, bytes } => {
            let stream = if *stream == Stream::Stderr { 2 } else { 1 };
            let data = STANDARD.encode(bytes);
            json!({ "logs": [{ "vertex": id(*vertex), "stream": stream, "data": data, "timestamp": now }] })
        }
        BuildEvent::Note { vertex, text } => {
            let status = json!({ "id": text, "vertex": id(*vertex), "timestamp": now });
            json!({ "statuses": [status] })
        }
        BuildEvent::Warning(warning) => {
            let short = STANDARD.encode(format!("{}: {}", warning.rule, warning.message));
            let range = json!([{ "start": { "line": warning.line }, "end": { "line": warning.line } }]);
            json!({ "warnings": [{ "level": 1, "short": short, "range": range }] })
        }
        BuildEvent::Planned(_) | BuildEvent::Material(_) | BuildEvent::Failure(_) => return None,
    };
    Some(value.to_string())
}

/// Vertices are known by digests there; any that stays the same through a build will do.
fn id(vertex: Vertex) -> String {
    Digest::of(vertex.0.to_string().as_bytes()).to_string()
}

fn vertex_line(vertex: &Value) -> Value {
    json!({ "vertexes": [vertex] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_prints_is_told_with_its_step() {
        let started = line(&BuildEvent::Started { vertex: Vertex(3), name: "x".into() }).unwrap();
        let started: Value = serde_json::from_str(&started).unwrap();
        let event = BuildEvent::Output { vertex: Vertex(3), stream: Stream::Stderr, bytes: b"hi".to_vec() };
        let output: Value = serde_json::from_str(&line(&event).unwrap()).unwrap();
        assert_eq!(output["logs"][0]["vertex"], started["vertexes"][0]["digest"]);
        assert_eq!(output["logs"][0]["data"], "aGk=");
        assert_eq!(output["logs"][0]["stream"], 2);
    }
}
