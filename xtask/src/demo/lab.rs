//! The `lb` command, as the demo uses it.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::step;

/// Name of the demo's lab: beside any that the user has.
pub(super) const NAME: &str = "demo";

/// A frontend of the Service.
pub(super) struct Service {
    address: IpAddr,
    port: u64,
    pub(super) backends: u64,
}

impl Service {
    /// What to tell curl.
    pub(super) fn url(&self) -> String {
        match (self.address, self.port) {
            (IpAddr::V4(address), 80) => format!("http://{address}/"),
            (IpAddr::V4(address), port) => format!("http://{address}:{port}/"),
            (IpAddr::V6(address), port) => format!("http://[{address}]:{port}/"),
        }
    }
}

/// The demo's lab.
pub(super) struct Lab {
    program: PathBuf,
}

impl Lab {
    /// Removes what an interrupted demo has left.
    pub(super) fn fresh(program: PathBuf) -> anyhow::Result<Self> {
        let lab = Self { program };
        lab.quiet(&["lab", "down", "--name", NAME])?;
        Ok(lab)
    }

    /// `lb` with arguments.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(step::workspace());
        command
    }

    /// Runs `lb`, showing the command and what it prints.
    pub(super) fn shown(&self, arguments: &[&str]) -> anyhow::Result<()> {
        println!("$ lb {}", arguments.join(" "));
        std::io::stdout().flush().context("cannot print")?;
        let status = self.command(arguments).status().context("cannot start lb")?;
        ensure!(status.success(), "`lb {}` failed: {status}", arguments.join(" "));
        Ok(())
    }

    /// Like [`shown`](Self::shown), on the lab's node: its interfaces have their names there only.
    pub(super) fn shown_in_node(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let program = self.program.to_string_lossy();
        let exec = ["lab", "exec", "--name", NAME, "node", "--"];
        println!("$ lb {} lb {}", exec.join(" "), arguments.join(" "));
        let status = self
            .command(&[&exec[..], &[&*program], arguments].concat())
            .status()
            .context("cannot start lb")?;
        ensure!(status.success(), "`lb {}` failed on the node: {status}", arguments.join(" "));
        Ok(())
    }

    /// Runs `lb` and gives back what it prints.
    pub(super) fn quiet(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.command(arguments).output().context("cannot start lb")?;
        let why = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`lb {}` failed: {}", arguments.join(" "), why.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let text = self.quiet(&[arguments, &["--output", "json"]].concat())?;
        serde_json::from_str(&text)
            .with_context(|| format!("`lb {}` did not print JSON", arguments.join(" ")))
    }

    fn status(&self) -> anyhow::Result<Value> {
        self.json(&["lab", "status", "--name", NAME])
    }

    /// Where the lab's agent pins.
    pub(super) fn pins(&self) -> anyhow::Result<String> {
        let status = self.status()?;
        Ok(status["agent"]["pin_dir"].as_str().context("lab status has no agent.pin_dir")?.to_owned())
    }

    /// Names of the pods behind the Service.
    pub(super) fn pods(&self) -> anyhow::Result<BTreeSet<String>> {
        let status = self.status()?;
        let pods = status["pods"].as_array().context("lab status has no pods")?;
        let backends = pods.iter().filter(|pod| pod["labels"]["app"] == "backend");
        Ok(backends.filter_map(|pod| pod["name"].as_str().map(str::to_owned)).collect())
    }

    /// A Service's first frontend, if the kernel has it.
    pub(super) fn service(&self, name: &str) -> anyhow::Result<Option<Service>> {
        let services = self.json(&["get", "services", "--pin-dir", &self.pins()?])?;
        let rows = services.as_array().context("lb get services gave no list")?;
        let row = rows.iter().find(|row| {
            row["service"]
                .as_str()
                .and_then(|found| found.strip_prefix(name))
                .is_some_and(|rest| rest.starts_with(':'))
        });
        row.map(|row| {
            let address = row["address"].as_str().and_then(|address| address.parse().ok());
            Ok(Service {
                address: address.context("a frontend without address")?,
                port: row["port"].as_u64().context("a frontend without port")?,
                backends: row["backends"].as_u64().context("a frontend without backends")?,
            })
        })
        .transpose()
    }
}
