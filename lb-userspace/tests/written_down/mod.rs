//! Tests as text: each `NAME.yaml` of a folder in, `NAME.txt` out, whole and exact. `UPDATE_EXPECTED=1` writes the texts anew.

use std::fs;
use std::path::Path;

/// Compares what `run` makes of each file of `tests/FOLDER` with what is written beside it; there are `least` files or more.
pub(crate) fn check(folder: &str, least: usize, run: impl Fn(&Path) -> String) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    assert!(files.len() >= least, "{files:?}");
    let mut failed = Vec::new();
    for file in files {
        let actual = run(&file);
        let expected_file = file.with_extension("txt");
        if update {
            fs::write(&expected_file, &actual).unwrap();
        }
        let expected = fs::read_to_string(&expected_file).unwrap_or_default();
        if actual != expected {
            failed.push(format!("{}\n--- expected\n{expected}--- actual\n{actual}", file.display()));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
