//! `lb detach`: lets go of all interfaces and removes every pin.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::dataplane::{DataplaneError, PinDir, detach, detach_sockets, kernel_at_least};
use crate::maps::DEFAULT_PIN_DIR;

/// Let go of all interfaces and remove everything from the kernel; connections through Services end.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Directory that the agent pinned its maps and links in
    #[arg(long, default_value = DEFAULT_PIN_DIR, env = "LB_PIN_DIR", value_name = "DIR")]
    pub pin_dir: PathBuf,

    /// Let go of this interface only, and leave the maps; may be given several times
    #[arg(long, value_name = "NAME")]
    pub iface: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// When an agent is running on the directory, or something cannot be removed.
pub fn execute(args: &Args) -> anyhow::Result<()> {
    let pins = PinDir::new(&args.pin_dir);
    if !pins.exists() {
        println!("{}: nothing is pinned there", args.pin_dir.display());
        return Ok(());
    }
    let _lock = pins.lock().map_err(|error| match error {
        DataplaneError::Locked { .. } => anyhow::anyhow!("{error}: stop the agent first"),
        error => error.into(),
    })?;
    let mut ifaces: BTreeSet<_> = pins.links_found()?.into_iter().map(|link| link.iface).collect();
    if !kernel_at_least(6, 6) {
        // clsact filters have no pins: look on every interface.
        let all = nix::net::if_::if_nameindex()?;
        ifaces.extend(all.iter().map(|iface| iface.name().to_string_lossy().into_owned()));
    }
    for iface in ifaces.iter().filter(|iface| args.iface.is_empty() || args.iface.contains(iface)) {
        detach(&pins, iface)?;
        println!("{iface}: let go");
    }
    if args.iface.is_empty() {
        if detach_sockets(&pins)? {
            println!("sockets: let go");
        }
        pins.remove();
        anyhow::ensure!(
            !pins.exists(),
            "{}: lb's pins are removed, but something else is in there; look at it and remove it by hand",
            args.pin_dir.display()
        );
        println!("{}: removed", args.pin_dir.display());
    }
    Ok(())
}
