//! The lists in the documentation are those of the code.

use std::fmt::Write;
use std::path::Path;

use lb_common::reason::Reason;
use lb_common::tables::SPECS;

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

#[test]
fn architecture_lists_tables_and_reasons() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/architecture.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let wanted = with_section(&with_section(&document, "tables", &tables()), "reasons", &reasons());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, wanted).unwrap();
    } else {
        assert!(
            document == wanted,
            "docs/architecture.md is out of date: UPDATE_DOCS=1 cargo test -p lb-tests --test docs"
        );
    }
}
