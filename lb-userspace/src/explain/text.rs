//! The explanation for people.

use std::fmt::Write as _;

use comfy_table::Table;
use comfy_table::presets::NOTHING;

use super::Explanation;
use super::backends::Candidate;
use crate::model::desired::Algorithm;

impl Explanation {
    /// The text for people, ending in a line break.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string never fails.
        let _infallible = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let what = if self.packet.mid_flow { "a packet of an unknown connection" } else { "a first packet" };
        writeln!(out, "{what}, {}: {}\n", self.packet.protocol, self.before)?;
        writeln!(out, "client    {}: {}", self.client.class, self.client.why)?;
        match &self.frontend {
            Some(frontend) => {
                let port = match frontend.port_name.as_str() {
                    "" => String::new(),
                    name => format!(", port {name:?}"),
                };
                let kind = serde_json::to_value(frontend.kind).unwrap_or_default();
                let kind = kind.as_str().unwrap_or_default();
                let (address, protocol) = (frontend.address, &self.packet.protocol);
                writeln!(
                    out,
                    "frontend  {address}/{protocol}, {kind} of Service {}{port} ({})",
                    frontend.service, frontend.rule
                )?;
            }
            None => writeln!(out, "frontend  none")?,
        }
        if let Some(policy) = &self.policy {
            writeln!(out, "policy    {}: {}", policy.traffic, policy.why)?;
            if !policy.source_ranges.is_empty() {
                writeln!(out, "          only from {} (V7)", policy.source_ranges.join(", "))?;
            }
            let affinity = match policy.affinity_timeout_s {
                Some(seconds) => format!("; a client keeps its backend for {seconds} s (S4)"),
                None => String::new(),
            };
            writeln!(out, "choice    {}{affinity}", algorithm(policy.algorithm))?;
        }
        if !self.backends.is_empty() {
            write!(out, "\n{}", backends(&self.backends))?;
        }
        let verdict = &self.verdict;
        writeln!(
            out,
            "\nverdict   {} ({}): {}: {}",
            verdict.class, verdict.reason, verdict.rule, verdict.text
        )?;
        if !verdict.detail.is_empty() {
            writeln!(out, "          {}", verdict.detail)?;
        }
        match (self.after, self.answer) {
            (Some(after), Some(answer)) => writeln!(out, "answer    {after}, {answer}")?,
            (Some(after), None) => {
                writeln!(out, "before    {}\nafter     {after}", self.before)?;
            }
            (None, _) => {}
        }
        if let Some(masquerade) = &self.masquerade {
            let done = if masquerade.done { "changed" } else { "kept" };
            writeln!(out, "source    {done}: {} ({})", masquerade.why, masquerade.rule)?;
        }
        if !self.remarks.is_empty() {
            writeln!(out)?;
        }
        for remark in &self.remarks {
            writeln!(out, "note      {} ({})", remark.text, remark.rule)?;
        }
        if let Some(live) = &self.live {
            write!(out, "\n{}", live.text())?;
        }
        Ok(())
    }
}

const fn algorithm(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::RoundRobin => "round-robin: backends in turn (S1)",
        Algorithm::Random => "random (S2)",
        Algorithm::Maglev => "maglev: by hash of addresses and ports (S3)",
        Algorithm::LeastConnections => "least-connections: the less busy of two drawn at random (S2)",
        Algorithm::Weighted => "weighted: backends in turn, by weight (S2)",
    }
}

fn backends(backends: &[Candidate]) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header(["BACKEND", "OF", "NODE", "TAKES PART", "RULE", "WHY"]);
    for backend in backends {
        let part = match (backend.chosen, backend.candidate) {
            (true, _) => "yes, chosen",
            (false, true) => "yes",
            (false, false) => "no",
        };
        let weight = if backend.weight == 1 { String::new() } else { format!(", weight {}", backend.weight) };
        table.add_row([
            backend.address.to_string(),
            if backend.target.is_empty() { "-".to_owned() } else { backend.target.clone() },
            if backend.local { "this" } else { "other" }.to_owned(),
            part.to_owned(),
            backend.rule.to_owned(),
            format!("{}{weight}", backend.why),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().fold(String::new(), |text, line| text + line.trim_end() + "\n")
}
