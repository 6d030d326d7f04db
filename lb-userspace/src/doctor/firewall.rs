//! Firewall rules that break translated replies.
//!
//! A balancer that translates before conntrack sees the packet makes replies that belong to no connection it knows. It
//! calls them invalid, and the common `ct state invalid drop` ends them.

use std::process::Command;

use serde_json::Value;

use super::check::{Check, Status};

const NAME: &str = "rules on invalid packets";
const FORWARD: &str = "rules on forwarded packets";

/// All checks here.
pub(super) fn checks() -> Vec<Check> {
    let nft = output("nft", &["-j", "list", "ruleset"]);
    let iptables = ["iptables-save", "ip6tables-save"].map(|program| output(program, &[]));
    let Some(nft) = nft else {
        return vec![Check::bad(
            Status::Note,
            NAME,
            "could not see: no nft here",
            "apt-get install nftables, then look again; or look for `ct state invalid drop` yourself",
        )];
    };
    let rules = match nft.and_then(|json| Ruleset::parse(&json)) {
        Ok(rules) => rules,
        Err(why) => {
            return vec![Check::bad(
                Status::Note,
                NAME,
                format!("could not see: {why}"),
                "run `lb doctor` as root",
            )];
        }
    };
    let mut drops = rules.invalid;
    // nft shows rules made by iptables without their matches, hence both. Either may be missing.
    drops.extend(iptables.into_iter().flatten().flatten().flat_map(|rules| iptables_drops(&rules)));
    vec![invalid(&drops), forward(&rules.forward)]
}

fn invalid(drops: &[String]) -> Check {
    if drops.is_empty() {
        return Check::ok(NAME, "none drops them");
    }
    Check::bad(
        Status::Warning,
        NAME,
        format!("dropped by {}", drops.join("; ")),
        "translated replies are invalid to conntrack: take the rule out, or accept the Service ranges before it",
    )
}

fn forward(chains: &[String]) -> Check {
    if chains.is_empty() {
        return Check::ok(FORWARD, "none");
    }
    Check::bad(
        Status::Note,
        FORWARD,
        chains.join("; "),
        "they see the addresses of backends, not of Services: let these pass",
    )
}

/// What a program prints; `None` if there is no such program.
fn output(program: &str, arguments: &[&str]) -> Option<Result<String, String>> {
    let output = Command::new(program).args(arguments).output().ok()?;
    Some(if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let why = String::from_utf8_lossy(&output.stderr);
        Err(why.lines().next().unwrap_or("it failed without a word").to_owned())
    })
}

/// What of nft's ruleset matters here.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ruleset {
    /// Rules that drop invalid packets, as `family table chain`.
    invalid: Vec<String>,
    /// Chains at the forward hook that have rules or drop by policy.
    forward: Vec<String>,
}

impl Ruleset {
    /// From `nft -j list ruleset`.
    fn parse(json: &str) -> Result<Self, String> {
        let json: Value = serde_json::from_str(json).map_err(|error| format!("nft's answer: {error}"))?;
        let objects = json["nftables"].as_array().ok_or("nft's answer has no list of objects")?;
        let rules: Vec<&Value> = objects.iter().filter_map(|object| object.get("rule")).collect();
        let invalid = rules.iter().filter(|rule| drops_invalid(rule)).map(|rule| place(rule, "chain"));
        let forward = objects
            .iter()
            .filter_map(|object| object.get("chain"))
            .filter(|chain| chain["hook"] == "forward")
            .filter_map(|chain| {
                let place = place(chain, "name");
                let count = rules.iter().filter(|rule| self::place(rule, "chain") == place).count();
                let policy = chain["policy"].as_str().unwrap_or("accept");
                (count > 0 || policy == "drop").then(|| format!("{place} ({count} rules, policy {policy})"))
            });
        Ok(Self { invalid: invalid.collect(), forward: forward.collect() })
    }
}

/// Where a chain or a rule is.
fn place(object: &Value, chain: &str) -> String {
    let field = |name: &str| object[name].as_str().unwrap_or("?").to_owned();
    format!("{} {} {}", field("family"), field("table"), field(chain))
}

fn drops_invalid(rule: &Value) -> bool {
    let Some(parts) = rule["expr"].as_array() else { return false };
    let invalid = parts.iter().any(|part| {
        let matching = &part["match"];
        matching["left"]["ct"]["key"] == "state"
            && matching["op"] != "!="
            && names(&matching["right"], "invalid")
    });
    // Also a verdict map: ct state vmap { invalid : drop }.
    let mapped = parts.iter().any(|part| {
        let map = &part["vmap"];
        map["key"]["ct"]["key"] == "state"
            && map["data"]["set"].as_array().is_some_and(|pairs| {
                pairs.iter().any(|pair| names(&pair[0], "invalid") && pair[1].get("drop").is_some())
            })
    });
    let refused = parts.iter().any(|part| part.get("drop").is_some() || part.get("reject").is_some());
    mapped || (invalid && refused)
}

/// Whether a value is this name, or a list or set with it.
fn names(value: &Value, name: &str) -> bool {
    match value {
        Value::String(text) => text == name,
        Value::Array(values) => values.iter().any(|value| names(value, name)),
        Value::Object(_) => value.get("set").is_some_and(|set| names(set, name)),
        _ => false,
    }
}

/// Lines of iptables-save that drop invalid packets.
fn iptables_drops(rules: &str) -> Vec<String> {
    rules
        .lines()
        .filter(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let state = words.windows(2).any(|pair| {
                matches!(pair[0], "--ctstate" | "--state")
                    && pair[1].split(',').any(|state| state == "INVALID")
            });
            state && words.windows(2).any(|pair| pair[0] == "-j" && matches!(pair[1], "DROP" | "REJECT"))
        })
        .map(|line| format!("iptables {line}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ruleset(expr: &str) -> Ruleset {
        Ruleset::parse(&format!(
            r#"{{"nftables": [
                {{"metainfo": {{"json_schema_version": 1}}}},
                {{"table": {{"family": "inet", "name": "filter"}}}},
                {{"chain": {{"family": "inet", "table": "filter", "name": "fwd", "hook": "forward", "policy": "accept"}}}},
                {{"rule": {{"family": "inet", "table": "filter", "chain": "fwd", "expr": {expr}}}}}
            ]}}"#
        ))
        .expect("a ruleset")
    }

    #[test]
    fn rules_that_drop_invalid_packets_are_found_in_every_spelling() {
        for expr in [
            r#"[{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "invalid"}}, {"counter": {}}, {"drop": null}]"#,
            r#"[{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["invalid", "untracked"]}}, {"reject": null}]"#,
            r#"[{"match": {"op": "==", "left": {"ct": {"key": "state"}}, "right": {"set": ["new", "invalid"]}}}, {"drop": null}]"#,
            r#"[{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["established", {"accept": null}], ["invalid", {"drop": null}]]}}}]"#,
        ] {
            assert_eq!(ruleset(expr).invalid, ["inet filter fwd"], "{expr}");
        }
    }

    #[test]
    fn other_rules_are_left_alone() {
        for expr in [
            r#"[{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "established"}}, {"drop": null}]"#,
            r#"[{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "invalid"}}, {"accept": null}]"#,
            r#"[{"match": {"op": "!=", "left": {"ct": {"key": "state"}}, "right": "invalid"}}, {"drop": null}]"#,
            r#"[{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["invalid", {"accept": null}]]}}}]"#,
            r#"[{"drop": null}]"#,
        ] {
            assert_eq!(ruleset(expr).invalid, Vec::<String>::new(), "{expr}");
        }
    }

    #[test]
    fn forward_chains_with_rules_are_told() {
        assert_eq!(ruleset(r#"[{"drop": null}]"#).forward, ["inet filter fwd (1 rules, policy accept)"]);
        let empty = r#"{"nftables": [{"chain": {"family": "ip", "table": "t", "name": "c", "hook": "forward", "policy": "accept"}}]}"#;
        assert_eq!(Ruleset::parse(empty), Ok(Ruleset::default()));
    }

    #[test]
    fn what_is_no_ruleset_is_refused() {
        for text in ["", "[]", "{}", r#"{"nftables": 3}"#] {
            assert!(Ruleset::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn iptables_rules_are_found() {
        let rules = "*filter\n:FORWARD ACCEPT [0:0]\n\
            -A FORWARD -m conntrack --ctstate INVALID -j DROP\n\
            -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
            -A INPUT -m state --state NEW,INVALID -j REJECT --reject-with icmp-port-unreachable\nCOMMIT\n";
        assert_eq!(iptables_drops(rules).len(), 2);
        assert_eq!(invalid(&iptables_drops(rules)).status, Status::Warning);
    }
}
