//! Kernels: Debian's packages for virtual machines, unpacked, not installed.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use super::archive::{Mirrors, Suite, output};
use crate::step;

/// A series of kernels, and suites that have it: those with short lists first, old releases leave the archive bit by bit.
const SERIES: &[(&str, &[&str])] = &[
    ("5.10", &["bullseye-security", "bullseye"]),
    ("6.1", &["bookworm-security", "bookworm"]),
    ("6.12", &["trixie-security", "trixie"]),
    ("6.18", &["trixie-backports"]),
    ("7", &["trixie-backports", "forky"]),
];
/// Names of the series, oldest first.
pub(crate) const NAMES: &[&str] = &["5.10", "6.1", "6.12", "6.18", "7"];
/// What the packages of kernels for virtual machines end in.
const FLAVOUR: &str = "-cloud-amd64";
/// Says that a folder is complete, and which packages are in it.
const LOCK: &str = "packages.lock";

/// A kernel, unpacked.
#[derive(Debug)]
pub(crate) struct Kernel {
    name: String,
    title: String,
    image: PathBuf,
    /// The folder above `kernel/`; none for a lone image.
    modules: Option<PathBuf>,
}

impl Kernel {
    /// Finds a kernel by the name of its series, or as a file; downloads what is not in `folder` yet.
    pub(crate) fn bring(name: &str, folder: &Path) -> anyhow::Result<Self> {
        if let Some((name, suites)) = SERIES.iter().find(|(series, _)| *series == name) {
            return Self::of_series(name, suites, folder);
        }
        let file = Path::new(name);
        ensure!(file.is_file(), "neither a file nor one of {}", NAMES.join(", "));
        if file.extension().is_none_or(|extension| extension != "deb") {
            let image = file.to_owned();
            return Ok(Self { name: stem(file), title: name.to_owned(), image, modules: None });
        }
        let into = folder.join("kernels").join(stem(file));
        if !into.join(LOCK).is_file() {
            unpack(file, &into)?;
            fs::write(into.join(LOCK), lock(&[file.to_owned()])?).context("write the lock file")?;
        }
        Self::unpacked(&stem(file), &into)
    }

    fn of_series(name: &str, suites: &[&str], folder: &Path) -> anyhow::Result<Self> {
        let into = folder.join("kernels").join(name);
        if into.join(LOCK).is_file() {
            return Self::unpacked(name, &into);
        }
        let mirrors = Mirrors::find()?;
        let mut troubles = Vec::new();
        for suite in suites {
            match fetch(name, suite, &mirrors, folder, &into) {
                Ok(()) => return Self::unpacked(name, &into),
                Err(error) => troubles.push(format!("{suite}: {error:#}")),
            }
        }
        bail!("cannot be had.\n  {}", troubles.join("\n  "))
    }

    fn unpacked(name: &str, folder: &Path) -> anyhow::Result<Self> {
        let image = find(folder, &|file| file.starts_with("vmlinuz")).context("there is no image in it")?;
        let veth = find(folder, &|file| file.starts_with("veth.ko")).context("there are no modules in it")?;
        let modules = veth.ancestors().find(|above| above.ends_with("kernel")).and_then(Path::parent);
        let title = fs::read_to_string(folder.join(LOCK)).context("read the lock file")?;
        let title = title.lines().next().unwrap_or_default().split(' ').next().unwrap_or(name).to_owned();
        Ok(Self { name: name.to_owned(), title, image, modules: modules.map(Path::to_owned) })
    }

    /// For people.
    pub(crate) fn title(&self) -> &str {
        &self.title
    }

    /// A name for its folder.
    pub(crate) fn file_name(&self) -> &str {
        &self.name
    }

    /// What is booted.
    pub(crate) fn image(&self) -> &Path {
        &self.image
    }

    /// The file of a module; none when there is none, as for what is built in.
    pub(crate) fn module(&self, name: &str) -> Option<PathBuf> {
        let plain = |file: &str| file.split(".ko").next().map(|stem| stem.replace('-', "_"));
        let wanted = Some(name.replace('-', "_"));
        find(self.modules.as_ref()?, &|file| file.contains(".ko") && plain(file) == wanted)
    }
}

/// Downloads the newest kernel of a series that a suite still has, and unpacks it.
fn fetch(name: &str, suite: &str, mirrors: &Mirrors, folder: &Path, into: &Path) -> anyhow::Result<()> {
    step::say(format!("kernel {name} from Debian's {suite}"));
    let archive = Suite::open(suite, mirrors, &folder.join("apt"))?;
    let mut releases: Vec<String> = archive
        .names(&format!("linux-image-{name}."))?
        .iter()
        .filter_map(|package| package.strip_prefix("linux-image-")?.strip_suffix(FLAVOUR).map(str::to_owned))
        .collect();
    releases.sort_by_key(|release| Reverse(numbers(release)));
    ensure!(!releases.is_empty(), "has no package linux-image-{name}.*{FLAVOUR}");
    let mut troubles = Vec::new();
    // The archive forgets files before it forgets their names.
    for release in &releases {
        for signed in ["", "-unsigned"] {
            match download(&archive, release, signed, folder, into) {
                Ok(()) => return Ok(()),
                Err(error) => troubles.push(format!("{release}{signed}: {error:#}")),
            }
        }
    }
    bail!("{}", troubles.join("\n  "))
}

/// Downloads and unpacks one kernel. From 7.0 on its image and its modules are packages of their own.
fn download(archive: &Suite, release: &str, signed: &str, folder: &Path, into: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(into) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("empty {}", into.display()));
        }
        _ => {}
    }
    let whole = vec![format!("linux-image-{release}{FLAVOUR}{signed}")];
    let parts =
        vec![format!("linux-binary{signed}-{release}{FLAVOUR}"), format!("linux-modules-{release}{FLAVOUR}")];
    let known = archive.names(&parts[0])?;
    let packages = if known.contains(&parts[0]) { parts } else { whole };
    let debs = folder.join("debs");
    let _fresh = fs::remove_dir_all(&debs);
    let mut files = Vec::new();
    for package in packages {
        let file = archive.download(&package, &debs)?;
        unpack(&file, into)?;
        files.push(file);
    }
    find(into, &|file| file.starts_with("vmlinuz")).context("there is no image in its packages")?;
    find(into, &|file| file.starts_with("veth.ko")).context("there are no modules in its packages")?;
    fs::write(into.join(LOCK), lock(&files)?).context("write the lock file")?;
    fs::remove_dir_all(&debs).with_context(|| format!("remove {}", debs.display()))
}

fn unpack(deb: &Path, into: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(into).with_context(|| format!("create {}", into.display()))?;
    output(Command::new("dpkg").arg("-x").arg(deb).arg(into)).map(drop)
}

/// A line for each package: what it is called with its version, and its digest.
fn lock(debs: &[PathBuf]) -> anyhow::Result<String> {
    let mut text = String::new();
    for deb in debs {
        let name = stem(deb);
        let name = name.strip_suffix("_amd64").unwrap_or(&name).replace("%3a", ":").replace("%7e", "~");
        let digest = output(Command::new("sha256sum").arg(deb))?;
        text += &format!("{name} {}\n", digest.split(' ').next().unwrap_or_default());
    }
    Ok(text)
}

fn stem(file: &Path) -> String {
    file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The numbers in a release's name, in order: `6.1.0-56` comes behind `6.1.0-9`.
fn numbers(release: &str) -> Vec<u64> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// The first file below a folder whose name is as wanted.
fn find(folder: &Path, wanted: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    let mut below = Vec::new();
    for entry in fs::read_dir(folder).ok()?.flatten() {
        // Links, such as `build`, lead elsewhere.
        let kind = entry.file_type().ok()?;
        if kind.is_dir() {
            below.push(entry.path());
        } else if kind.is_file() && wanted(&entry.file_name().to_string_lossy()) {
            return Some(entry.path());
        }
    }
    below.sort();
    below.iter().find_map(|folder| find(folder, wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_ordered_as_numbers() {
        let mut releases = ["6.1.0-9", "6.1.0-56", "6.1.0-10"];
        releases.sort_by_key(|release| Reverse(numbers(release)));
        assert_eq!(releases, ["6.1.0-56", "6.1.0-10", "6.1.0-9"]);
        assert!(numbers("6.12.117+deb13") > numbers("6.12.96+deb13"));
    }

    #[test]
    fn every_series_has_a_name() {
        assert_eq!(SERIES.iter().map(|(name, _)| *name).collect::<Vec<_>>(), NAMES);
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        let error = Kernel::bring("4.19", Path::new("/nonexistent")).expect_err("no such series");
        assert!(error.to_string().contains("5.10, 6.1"), "{error}");
    }
}
