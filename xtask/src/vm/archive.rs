//! Debian's archive, asked with lists of our own: what this machine installs from stays as it is.
//!
//! Where the archive is, the machine's own sources say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

/// Keys of all releases; part of every Debian.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// What the names of suites with security updates end in. They are in an archive of their own.
const SECURITY: &str = "-security";

/// Where this machine gets Debian's packages from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mirrors {
    debian: Option<String>,
    security: Option<String>,
}

impl Mirrors {
    /// Asks apt for the sources that it knows.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let format = "$(ORIGIN) $(CODENAME) $(REPO_URI)";
        Ok(Self::read(&output(Command::new("apt-get").args(["indextargets", "--format", format]))?))
    }

    /// Reads lines of origin, suite and address.
    fn read(lines: &str) -> Self {
        let mut this = Self { debian: None, security: None };
        for line in lines.lines() {
            let mut words = line.split(' ');
            let (Some("Debian"), Some(suite), Some(url)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let place = if suite.ends_with(SECURITY) { &mut this.security } else { &mut this.debian };
            place.get_or_insert_with(|| url.to_owned());
        }
        this
    }

    fn of(&self, suite: &str) -> anyhow::Result<&str> {
        let (url, what) = match suite.ends_with(SECURITY) {
            true => (&self.security, "Debian's security updates"),
            false => (&self.debian, "Debian"),
        };
        url.as_deref().with_context(|| {
            format!(
                "no source of this machine has {what}: look at /etc/apt/sources.list*, then apt-get update"
            )
        })
    }
}

/// A suite of the archive, with lists in a folder of its own.
#[derive(Debug)]
pub(crate) struct Suite {
    folder: PathBuf,
}

impl Suite {
    /// Reads the suite's lists.
    pub(crate) fn open(name: &str, mirrors: &Mirrors, folder: &Path) -> anyhow::Result<Self> {
        let url = mirrors.of(name)?;
        let folder = std::path::absolute(folder.join(name)).context("find the folder of lists")?;
        for part in ["lists/partial", "archives/partial"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).with_context(|| format!("create {}", part.display()))?;
        }
        let list = folder.join("sources.list");
        fs::write(&list, format!("deb [arch=amd64 signed-by={KEYS}] {url} {name} main\n"))
            .with_context(|| format!("write {}", list.display()))?;
        let this = Self { folder };
        this.run("apt-get", &["update", "-qq"])
            .with_context(|| format!("read the list of {url} {name}: has this machine a network?"))?;
        Ok(this)
    }

    /// Names of packages that begin so.
    pub(crate) fn names(&self, prefix: &str) -> anyhow::Result<Vec<String>> {
        let output = self.run("apt-cache", &["pkgnames", prefix])?;
        Ok(output.lines().map(str::to_owned).collect())
    }

    /// Downloads a package into a folder. apt compares it with the signed list.
    pub(crate) fn download(&self, package: &str, into: &Path) -> anyhow::Result<PathBuf> {
        fs::create_dir_all(into).with_context(|| format!("create {}", into.display()))?;
        let before = debs(into)?;
        let mut command = self.command("apt-get", &["download", "-qq", package]);
        output(command.current_dir(into))?;
        let new = debs(into)?.into_iter().find(|file| !before.contains(file));
        new.with_context(|| format!("apt-get has not left {package} in {}", into.display()))
    }

    fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        output(&mut self.command(program, arguments))
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        for (option, part) in [
            ("Dir::Etc::sourcelist", "sources.list"),
            ("Dir::State::lists", "lists"),
            ("Dir::Cache", ""),
            ("Dir::Cache::archives", "archives"),
        ] {
            command.arg("-o").arg(format!("{option}={}", self.folder.join(part).display()));
        }
        for option in [
            "Dir::Etc::sourceparts=-",
            "Acquire::Languages=none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
            "Acquire::Retries=3",
            "APT::Sandbox::User=root",
        ] {
            command.args(["-o", option]);
        }
        command.args(arguments);
        command
    }
}

fn debs(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let files = entries.flatten().map(|entry| entry.path());
    Ok(files.filter(|file| file.extension().is_some_and(|extension| extension == "deb")).collect())
}

/// What a command prints.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("start {program}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {}", complaint.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_read_from_the_sources() {
        let mirrors = Mirrors::read(
            "Others bookworm http://others.example/\nDebian bookworm-security http://one.example/security/\n\
             Debian bookworm http://one.example/debian/\nDebian bookworm-updates http://two.example/debian/\n",
        );
        assert_eq!(mirrors.of("bullseye").unwrap(), "http://one.example/debian/");
        assert_eq!(mirrors.of("bullseye-security").unwrap(), "http://one.example/security/");
    }

    #[test]
    fn a_machine_without_debian_says_so() {
        let mirrors = Mirrors::read("Ubuntu noble http://others.example/\n");
        let error = mirrors.of("trixie").expect_err("no mirror").to_string();
        assert!(error.contains("sources.list"), "{error}");
    }
}
