//! Every command of the tutorials is run. Needs root.

use std::path::{Path, PathBuf};

use lb_tests::transcript::{self, Step};

fn tutorial(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/tutorial.{language}.md"))
}

#[test]
fn english() {
    transcript::run(&tutorial("en"));
}

#[test]
fn spanish() {
    transcript::run(&tutorial("es"));
}

#[test]
fn both_languages_show_the_same() {
    let steps = |language| -> Vec<Step> {
        let text = std::fs::read_to_string(tutorial(language)).unwrap();
        // The lines they are on are not the same.
        transcript::steps(&text).into_iter().map(|step| Step { line: 0, ..step }).collect()
    };
    assert_eq!(steps("en"), steps("es"));
}
