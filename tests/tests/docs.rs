//! The lists in the documentation are those of the code.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use lb_common::reason::Reason;
use lb_common::tables::SPECS;
use lb_tests::rows;

fn tables() -> String {
    let mut text = String::from(
        "| map | kind | key bytes | value bytes | entries | writer | what |\n|---|---|---|---|---|---|---|\n",
    );
    for spec in SPECS {
        writeln!(
            text,
            "| `{}` | {:?} | {} | {} | {} | {:?} | {} |",
            spec.name, spec.kind, spec.key_size, spec.value_size, spec.max_entries, spec.writer, spec.purpose
        )
        .unwrap();
    }
    text
}

fn reasons() -> String {
    let mut text = String::from("| reason | class | rule | meaning |\n|---|---|---|---|\n");
    for reason in Reason::ALL {
        let (name, class) = (reason.name(), reason.class().name());
        writeln!(text, "| `{name}` | {class} | {} | {} |", reason.rule(), reason.text()).unwrap();
    }
    text
}

/// Replaces what stands between the marks of a section.
fn with_section(document: &str, section: &str, contents: &str) -> String {
    let begin = document.find(&format!("<!-- {section}: generated")).expect("the section begins");
    let begin = begin + document[begin..].find('\n').expect("the mark is a line") + 1;
    let end = document.find(&format!("<!-- {section}: end -->")).expect("the section ends");
    format!("{}{contents}{}", &document[..begin], &document[end..])
}

/// Rules by group, and how many each has.
const RULES: [(char, u8); 8] =
    [('F', 9), ('B', 8), ('S', 5), ('C', 7), ('V', 9), ('A', 8), ('H', 2), ('Z', 3)];

/// Where tests are, from the root of the repository.
const SOURCES: [&str; 5] =
    ["tests/tests", "lb-common/src", "lb-common/tests", "lb-userspace/src", "lb-userspace/tests"];

/// Tests whose names do not say which rules they prove.
const UNNAMED: [(&str, &str, &str); 15] = [
    ("S1", "tests/tests/traffic.rs", "programs_work_through_tc"),
    ("A1", "tests/tests/traffic.rs", "programs_work_through_tc"),
    ("V8", "tests/tests/traffic.rs", "programs_work_through_tc"),
    ("A7", "tests/tests/checksums.rs", "checksums_are_right_at_tc"),
    ("A7", "tests/tests/checksums.rs", "checksums_are_right_at_native_xdp"),
    ("A7", "tests/tests/checksums.rs", "checksums_are_right_at_generic_xdp"),
    ("S5", "tests/tests/life.rs", "connections_survive_kill_and_restart_on_tc"),
    ("S5", "tests/tests/life_interfaces.rs", "another_hook_over_a_restart_breaks_nothing_and_leaves_nothing"),
    ("S2", "lb-userspace/src/plan/spread.rs", "odd_weights_are_right_within_five_percent"),
    ("S3", "lb-userspace/src/plan/spread.rs", "maglev_moves_little"),
    ("S3", "lb-userspace/src/plan/spread.rs", "maglev_is_even_and_the_same_everywhere"),
    ("Z1", "tests/tests/manifests.rs", "a_folder_that_is_deleted_and_comes_back"),
    ("Z3", "tests/tests/manifests.rs", "broken_manifests_break_nothing_and_are_reported_until_mended"),
    ("Z3", "tests/tests/manifests.rs", "a_broken_document_does_not_hold_up_the_others"),
    ("C4", "tests/tests/traffic_kill.rs", "a_killed_pod_disturbs_no_other_at_tc"),
];

/// Tests by file.
type Tests = BTreeMap<String, BTreeSet<String>>;

/// The tests of a file: functions behind `#[test]`, and those that `at_every_hook!` makes tests of.
fn tests_of(text: &str) -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    let mut before = "";
    for line in text.lines().map(str::trim) {
        let name =
            line.trim_start_matches("async ").strip_prefix("fn ").and_then(|rest| rest.split('(').next());
        if let Some(name) = name.filter(|_| before == "#[test]" || before.starts_with("#[tokio::test")) {
            tests.insert(name.to_owned());
        }
        before = line;
    }
    let every_hook = text.split_once("\nat_every_hook! {").and_then(|(_, rest)| rest.split_once('}'));
    let names = every_hook.map_or("", |(names, _)| names).split_ascii_whitespace();
    tests.extend(names.map(|name| format!("{name}::at_…")));
    tests
}

fn all_tests(root: &Path) -> Tests {
    let mut tests = Tests::new();
    let mut folders: Vec<PathBuf> = SOURCES.map(|folder| root.join(folder)).into();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let found = tests_of(&std::fs::read_to_string(&path).unwrap());
                let name = path.strip_prefix(root).unwrap().display().to_string();
                tests.entry(name).or_default().extend(found);
            }
        }
    }
    tests
}

/// The rules that a test's name begins with: `c3_c4_…`.
fn rules_of(test: &str) -> Vec<String> {
    let is_rule = |word: &&str| {
        let mut letters = word.chars();
        let group = letters.next().map(|letter| letter.to_ascii_uppercase());
        let number = letters.as_str().parse::<u8>();
        RULES.iter().any(|(known, count)| {
            Some(*known) == group && number.as_ref().is_ok_and(|number| (1..=*count).contains(number))
        })
    };
    test.split('_').take_while(is_rule).map(str::to_uppercase).collect()
}

/// The table of rules: whether there are rows, and which tests.
fn rules(root: &Path) -> String {
    let tests = all_tests(root);
    let mut by_rule: BTreeMap<String, Tests> = BTreeMap::new();
    let mut note = |rule: String, file: &str, test: &str| {
        by_rule.entry(rule).or_default().entry(file.to_owned()).or_default().insert(test.to_owned());
    };
    for (file, names) in &tests {
        for name in names {
            rules_of(name).into_iter().for_each(|rule| note(rule, file, name));
        }
    }
    for (rule, file, test) in UNNAMED {
        assert!(tests.get(file).is_some_and(|names| names.contains(test)), "{file} has no test {test}");
        note(rule.to_owned(), file, test);
    }
    let rows: BTreeSet<String> =
        rows::cases::all().iter().map(|row| row.name.split(' ').next().unwrap().to_owned()).collect();
    let mut text = String::from("| rule | packet rows | tests |\n|---|---|---|\n");
    for (group, count) in RULES {
        for rule in (1..=count).map(|number| format!("{group}{number}")) {
            let of_rule = by_rule.remove(&rule).unwrap_or_default();
            assert!(rows.contains(&rule) || !of_rule.is_empty(), "{rule} has neither row nor test");
            let files: Vec<_> = of_rule
                .iter()
                .map(|(file, names)| {
                    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
                    format!("{file}: {}", names.join(", "))
                })
                .collect();
            let rows = if rows.contains(&rule) { "yes" } else { "" };
            writeln!(text, "| {rule} | {rows} | {} |", files.join("; ")).unwrap();
        }
    }
    text
}

/// The document as it should be; writes it when asked to.
fn check(name: &str, wanted: impl Fn(&str) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    let document = std::fs::read_to_string(&path).unwrap();
    let wanted = wanted(&document);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, wanted).unwrap();
    } else {
        assert!(
            document == wanted,
            "docs/{name} is out of date: UPDATE_DOCS=1 cargo test -p lb-tests --test docs"
        );
    }
}

#[test]
fn architecture_lists_tables_and_reasons() {
    check("architecture.md", |document| {
        with_section(&with_section(document, "tables", &tables()), "reasons", &reasons())
    });
}

#[test]
fn every_rule_has_a_row_or_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    check("rules.md", |document| with_section(document, "rules", &rules(&root)));
}

/// Tests that a document names, as `` `FILE`: `TEST` `` or `` `FILE` `` alone.
fn named(document: &str) -> Vec<(String, Option<String>)> {
    let mut named = Vec::new();
    let mut words =
        document.split('`').skip(1).step_by(2).zip(document.split('`').skip(2).step_by(2)).peekable();
    while let Some((word, between)) = words.next() {
        if Path::new(word).extension().is_some_and(|end| end == "rs") && word.contains("/tests/") {
            let test = words.peek().filter(|_| between.trim() == ":").map(|(test, _)| (*test).to_owned());
            named.push((word.to_owned(), test));
        }
    }
    named
}

#[test]
fn tests_that_documents_name_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let tests = all_tests(&root);
    for name in ["faults.md", "security.md"] {
        let document = std::fs::read_to_string(root.join("docs").join(name)).unwrap();
        let named = named(&document);
        assert!(named.len() > 10, "docs/{name}: {named:?}");
        for (file, test) in named {
            let found =
                tests.get(&file).unwrap_or_else(|| panic!("docs/{name}: there are no tests in {file}"));
            assert!(
                test.iter().all(|test| found.contains(test)),
                "docs/{name}: there is no {test:?} in {file}"
            );
        }
    }
}
