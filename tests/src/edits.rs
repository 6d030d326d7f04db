//! Random edits of a folder of manifests, the same for the same seed.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Services that come, change and go.
const SERVICES: u64 = 10;
/// Pods that selectors may find.
const PODS: u64 = 12;

/// Random numbers (SplitMix64 by Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Numbers that follow from `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Edits a folder.
#[derive(Debug)]
pub struct Edits {
    random: Random,
    folder: PathBuf,
}

impl Edits {
    /// Edits of this folder, which follow from `seed`.
    pub fn new(folder: &Path, seed: u64) -> Self {
        Self { random: Random::new(seed), folder: folder.to_owned() }
    }

    /// Makes one edit and says what it was.
    ///
    /// # Panics
    /// When the folder cannot be written.
    pub fn next_edit(&mut self) -> String {
        let number = self.random.below(SERVICES);
        let (name, text) = match self.random.below(10) {
            0..=2 => (format!("service-{number}.yaml"), self.service(number)),
            3..=6 => (format!("slices-{number}.yaml"), self.slices(number)),
            7 | 8 => {
                let pod = self.random.below(PODS);
                (format!("pod-{pod}.yaml"), self.pod(pod))
            }
            // Of two files with one object the later counts.
            _ => (format!("z-{number}.json"), self.duplicate(number)),
        };
        let path = self.folder.join(&name);
        match self.random.below(8) {
            0 => {
                if fs::remove_file(&path).is_ok() {
                    format!("removed {name}")
                } else {
                    self.write(&path, &text)
                }
            }
            1 => self.write(&path, &self.broken(&text)),
            _ => self.write(&path, &text),
        }
    }

    /// Removes what is broken, so that only the manifests say what is in force, not what they said before.
    ///
    /// # Panics
    /// When the folder cannot be read or written.
    pub fn mend(&self) {
        for entry in fs::read_dir(&self.folder).expect("reads").flatten() {
            let text = fs::read_to_string(entry.path()).expect("reads");
            if text.contains(BROKEN) {
                fs::remove_file(entry.path()).expect("removes");
            }
        }
    }

    fn write(&mut self, path: &Path, text: &str) -> String {
        // As editors do it: in place, or a new file in the place of the old.
        if self.random.once_in(2) {
            fs::write(path, text).expect("writes");
        } else {
            let draft = path.with_extension("draft");
            fs::write(&draft, text).expect("writes");
            fs::rename(draft, path).expect("renames");
        }
        format!("wrote {}:\n{text}", path.display())
    }

    fn broken(&self, text: &str) -> String {
        format!("{text}\n---\nkind: Service\nmetadata: {{name: {BROKEN}}}\nspec: {{ports: [{{port: no}}]}}\n")
    }

    fn service(&mut self, number: u64) -> String {
        let random = &mut self.random;
        let mut spec = String::new();
        // Half have an address of their own, the rest are given one.
        match number % 4 {
            0 => _ = write!(spec, "clusterIP: 10.96.200.{number}, "),
            1 => {
                _ = write!(
                    spec,
                    "clusterIP: 10.96.200.{number}, clusterIPs: [10.96.200.{number}, 'fd00:96::200:{number}'], \
                     ipFamilies: [IPv4, IPv6], ipFamilyPolicy: RequireDualStack, "
                );
            }
            _ => {}
        }
        if random.once_in(8) && number % 4 > 1 {
            spec.push_str("clusterIP: None, ");
        } else if random.once_in(3) {
            spec.push_str("type: NodePort, ");
        }
        if random.once_in(3) {
            _ = write!(spec, "externalIPs: [198.51.100.{number}], ");
        }
        if random.once_in(3) {
            spec.push_str("internalTrafficPolicy: Local, ");
        }
        if random.once_in(3) {
            let timeout = random.below(1000) + 1;
            _ = write!(
                spec,
                "sessionAffinity: ClientIP, sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {timeout}}}}}, "
            );
        }
        if number >= SERVICES / 2 {
            _ = write!(spec, "selector: {{app: {}}}, ", random.pick(&["a", "b", "c"]));
        }
        let ports: Vec<_> = ["http", "dns", "other"]
            .iter()
            .take(random.below(3) as usize + 1)
            .map(|port| {
                let protocol = if *port == "dns" { "UDP" } else { "TCP" };
                let number = random.below(3) + 80;
                let number = if *port == "other" { number + 1000 } else { number };
                format!(
                    "{{name: {port}, port: {number}, protocol: {protocol}, targetPort: {}}}",
                    number + 8000
                )
            })
            .collect();
        let algorithm = random.pick(&["round-robin", "random", "maglev", "least-connections", "weighted"]);
        format!(
            "kind: Service\nmetadata: {{name: s{number}, annotations: {{lb.io/algorithm: {algorithm}}}}}\n\
             spec: {{{spec}ports: [{}]}}\n",
            ports.join(", ")
        )
    }

    fn slices(&mut self, number: u64) -> String {
        let random = &mut self.random;
        let slice = |random: &mut Random, family: u64| {
            let endpoints: Vec<_> = (0..random.below(7))
                .map(|_| {
                    let host = random.below(20) + 1;
                    let address =
                        if family == 4 { format!("10.77.9.{host}") } else { format!("fd00:77::9:{host}") };
                    let node = random.pick(&["here", "there"]);
                    let condition = random.pick(&[
                        "",
                        "conditions: {ready: true}, ",
                        "conditions: {ready: false, serving: true, terminating: true}, ",
                        "conditions: {ready: false, serving: false}, ",
                    ]);
                    format!("{{addresses: ['{address}'], {condition}nodeName: {node}}}")
                })
                .collect();
            let port = random.below(3) + 8080;
            format!(
                "kind: EndpointSlice\nmetadata: {{name: s{number}-{family}, labels: {{kubernetes.io/service-name: s{number}}}}}\n\
                 addressType: IPv{family}\nports: [{{name: http, port: {port}}}, {{name: dns, port: 53, protocol: UDP}}]\n\
                 endpoints: [{}]\n",
                endpoints.join(", ")
            )
        };
        let mut text = slice(random, 4);
        if random.once_in(2) {
            text = format!("{text}---\n{}", slice(random, 6));
        }
        text
    }

    fn pod(&mut self, number: u64) -> String {
        let app = self.random.pick(&["a", "b", "c"]);
        let ready = if self.random.once_in(4) { "False" } else { "True" };
        format!(
            "kind: Pod\nmetadata: {{name: p{number}, labels: {{app: {app}}}}}\nspec: {{containers: [{{name: c}}]}}\n\
             status: {{podIP: 10.77.8.{number}, podIPs: [{{ip: 10.77.8.{number}}}, {{ip: 'fd00:77::8:{number}'}}], \
             conditions: [{{type: Ready, status: '{ready}'}}]}}\n"
        )
    }

    fn duplicate(&mut self, number: u64) -> String {
        let port = self.random.below(3) + 90;
        format!(
            "{{\"kind\": \"Service\", \"metadata\": {{\"name\": \"s{number}\"}}, \"spec\": {{\"ports\": \
             [{{\"port\": {port}, \"name\": \"http\"}}], \"clusterIP\": \"10.96.200.{number}\"}}}}\n"
        )
    }
}

/// Name of what [`Edits::mend`] looks for.
const BROKEN: &str = "broken";
