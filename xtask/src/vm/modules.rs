//! The modules that the checks need, in an order in which they can be loaded.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use super::kernel::Kernel;

/// Devices and hooks of the checks.
const WANTED: &[&str] =
    &["virtio_pci", "virtio_net", "veth", "sch_ingress", "cls_bpf", "udp_diag", "ip_vs_rr"];

/// A module, ready to be loaded.
#[derive(Debug)]
pub(crate) struct Module {
    /// Without `.ko`.
    pub(crate) name: String,
    /// The file, decompressed.
    pub(crate) contents: Vec<u8>,
}

/// All that are wanted, each behind what it depends on. What the kernel has built in has no file, and is left out.
pub(crate) fn of(kernel: &Kernel) -> anyhow::Result<Vec<Module>> {
    let mut modules = Vec::new();
    for name in WANTED {
        add(kernel, name, &mut modules)?;
    }
    Ok(modules)
}

fn add(kernel: &Kernel, name: &str, modules: &mut Vec<Module>) -> anyhow::Result<()> {
    if modules.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let Some(file) = kernel.module(name) else { return Ok(()) };
    let contents = read(&file)?;
    for needed in depends(&contents) {
        add(kernel, &needed, modules)?;
    }
    modules.push(Module { name: name.to_owned(), contents });
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    if file.extension().is_some_and(|extension| extension == "xz") {
        let output = Command::new("xz").arg("-dc").arg(file).output().context("start xz")?;
        ensure!(output.status.success(), "xz: {}", String::from_utf8_lossy(&output.stderr).trim());
        return Ok(output.stdout);
    }
    std::fs::read(file).with_context(|| format!("read {}", file.display()))
}

/// What a module says that it depends on, in its `.modinfo`.
fn depends(module: &[u8]) -> Vec<String> {
    let fields = module.split(|byte| *byte == 0);
    let list = fields.filter_map(|field| field.strip_prefix(b"depends=")).next().unwrap_or_default();
    let list = String::from_utf8_lossy(list);
    list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_the_modules_own_words() {
        assert_eq!(
            depends(b"\x7fELF\0license=GPL\0depends=nf_conntrack,libcrc32c\0x"),
            ["nf_conntrack", "libcrc32c"]
        );
        assert!(depends(b"\0depends=\0").is_empty());
        assert!(depends(b"nothing").is_empty());
    }
}
