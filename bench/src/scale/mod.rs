//! `scale`: what more Services cost, in time, memory and for each packet.

mod counting;
mod library;
mod live;

use anyhow::Context;
use serde::Serialize;

use self::library::Steps;
use self::live::Live;
use crate::manifests;
use crate::packet::growth::{self, Growth};
use crate::path::stage;

/// So many Services with so many backends each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Setting {
    /// Services, of one port each.
    pub(crate) services: u32,
    /// Backends of each.
    pub(crate) backends: u32,
}

const fn setting(services: u32, backends: u32) -> Setting {
    Setting { services, backends }
}

/// All settings.
const ALL: [Setting; 5] =
    [setting(100, 3), setting(1_000, 3), setting(10_000, 3), setting(50_000, 3), setting(5_000, 50)];
/// Those of a quick run.
const FEW: [Setting; 2] = [setting(1_000, 3), setting(10_000, 3)];

/// How much to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Fewer settings and rounds.
    pub(crate) quick: bool,
    /// Seed of every order.
    pub(crate) seed: u64,
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Report {
    /// By setting.
    pub(crate) settings: Vec<Measured>,
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Measured {
    /// How many.
    #[serde(flatten)]
    pub(crate) setting: Setting,
    /// The steps one by one.
    pub(crate) steps: Steps,
    /// The agent.
    pub(crate) agent: Live,
    /// A packet, against one Service.
    pub(crate) packet: Growth,
}

/// Measures all settings.
pub(crate) fn measure(effort: Effort) -> anyhow::Result<Report> {
    stage::sweep().context("remove what an earlier run has left")?;
    let (wanted, rounds, changes): (&[Setting], _, _) =
        if effort.quick { (&FEW, 2, 5) } else { (&ALL, 5, 30) };
    let mut settings = Vec::new();
    for (number, &setting) in wanted.iter().enumerate() {
        let Setting { services, backends } = setting;
        eprintln!("scale: {services} Services × {backends}");
        let folder = stage::folder()?;
        manifests::write(folder.path(), services, |service| {
            (0..backends).map(|pod| manifests::pod(service, backends, pod)).collect()
        })?;
        settings.push(Measured {
            setting,
            steps: library::steps(setting, folder.path(), rounds, changes)?,
            agent: live::live(setting, number, folder.path(), changes)?,
            packet: growth::measure(services, rounds, effort.seed)?,
        });
    }
    Ok(Report { settings })
}
