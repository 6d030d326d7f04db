//! `lb explain` from end to end, without root: questions in, whole and exact answers out.
//!
//! `tests/explain/questions.txt` holds both; `UPDATE_EXPECTED=1` writes the answers anew, and the difference is to be reviewed
//! like code.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use lb_common::reason::Reason;
use lb_userspace::explain::{Args, Explanation, Situation, explain};
use lb_userspace::source::Source;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/explain")
}

/// Asks about shop.yaml as node n1.
fn ask(words: &str) -> Result<Explanation, String> {
    let manifests = folder().join("shop.yaml");
    let fixed = ["lb", "--node-name", "n1", "--manifests", manifests.to_str().unwrap()];
    let args = Cli::try_parse_from(fixed.into_iter().chain(words.split_whitespace()));
    let args = args.map_err(|error| error.to_string())?.args;
    let snapshot = Source::new(&args.manifests).load();
    assert_eq!(snapshot.problems, []);
    let situation = Situation::new(&args, snapshot.objects).map_err(|error| format!("{error:#}"))?;
    explain(&args, &situation).map_err(|error| format!("{error:#}"))
}

#[test]
fn answers_are_as_written_down() {
    let path = folder().join("questions.txt");
    let expected = fs::read_to_string(&path).unwrap();
    let mut found = String::new();
    let mut seen = BTreeSet::new();
    for line in expected.lines().filter(|line| line.is_empty() || line.starts_with(['#', '$'])) {
        if line.is_empty() {
            if !found.ends_with("\n\n") {
                found.push('\n');
            }
            continue;
        }
        found.push_str(line);
        found.push('\n');
        let Some(words) = line.strip_prefix("$ ") else { continue };
        let answer = match ask(words) {
            Ok(explanation) => {
                seen.insert(explanation.verdict.reason);
                explanation.text()
            }
            Err(error) => format!("lb: {error}\n"),
        };
        for line in answer.lines() {
            found.push_str(format!("  {line}").trim_end());
            found.push('\n');
        }
    }
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&path, &found).unwrap();
    }
    for (number, (expected, found)) in expected.lines().zip(found.lines()).enumerate() {
        assert_eq!(expected, found, "questions.txt line {}", number + 1);
    }
    assert_eq!(expected.lines().count(), found.lines().count());
    // Every verdict that one packet alone can meet.
    let wanted = [
        Reason::NewFlow,
        Reason::NotOurs,
        Reason::OtherProtocol,
        Reason::Malformed,
        Reason::RejectedNoBackend,
        Reason::RejectedPort,
        Reason::ResetMidFlow,
        Reason::Ping,
        Reason::DropNoLocalBackend,
        Reason::DropUnowned,
        Reason::DropSourceRange,
        Reason::DropExternal,
    ];
    let wanted: BTreeSet<_> = wanted.iter().map(|reason| reason.name()).collect();
    assert_eq!(seen, wanted);
}

/// `$value.at` as text.
fn at<'a>(value: &'a serde_json::Value, pointer: &str) -> &'a str {
    value.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is missing")).as_str().unwrap()
}

#[test]
fn json_has_stable_names() {
    let explanation = ask("198.51.100.7:40000 192.168.1.5:30080").unwrap();
    let value = serde_json::to_value(&explanation).unwrap();
    for (pointer, expected) in [
        ("/packet/protocol", "TCP"),
        ("/client/class", "outside"),
        ("/frontend/kind", "NodePort"),
        ("/frontend/service", "default/web"),
        ("/frontend/rule", "F6"),
        ("/policy/traffic", "Cluster"),
        ("/policy/algorithm", "round-robin"),
        ("/backends/0/address", "10.244.1.11:8080"),
        ("/backends/0/rule", "B5"),
        ("/backends/1/rule", "B8"),
        ("/verdict/class", "forwarded"),
        ("/verdict/reason", "new-flow"),
        ("/verdict/rule", "S1"),
        ("/masquerade/rule", "A2"),
        ("/before/source/address", "198.51.100.7"),
        ("/after/source/address", "192.168.1.5"),
        ("/after/destination/address", "10.244.1.11"),
    ] {
        assert_eq!(at(&value, pointer), expected, "{pointer}");
    }
    assert_eq!(value.pointer("/backends/0/chosen"), Some(&true.into()));
    assert_eq!(value.pointer("/before/source/port"), Some(&40000.into()));
    assert_eq!(value.pointer("/live"), Some(&serde_json::Value::Null));
}

#[test]
fn one_question_never_changes_the_answer_to_another() {
    let first = ask("10.244.2.99 web").unwrap();
    let _other = ask("198.51.100.7 192.168.1.5:30080").unwrap();
    assert_eq!(ask("10.244.2.99 web").unwrap(), first);
}
