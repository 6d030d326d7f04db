//! The programs stay within what is recorded of them. Needs root.
//!
//! The only test of its file: it lowers the process's limit of open files for a moment.

use lb_tests::verifier::Budget;

#[test]
fn programs_have_not_grown() {
    let now = Budget::measure().expect("the verifier accepts the programs, and says what they cost");
    println!("{}", now.table());
    if std::env::var_os("UPDATE_BUDGET").is_some() {
        now.record().expect("the record can be written");
        return;
    }
    let recorded = Budget::recorded().expect("there is a record");
    // Without programs nothing could have grown.
    assert!(now.programs.len() >= 5, "programs: {:?}", now.programs.keys());
    if !now.is_comparable(&recorded) {
        println!("not compared: what is recorded is of kernel {}, {}", recorded.kernel, recorded.compiler);
        return;
    }
    let grown = now.grown_since(&recorded);
    assert!(grown.is_empty(), "{}", grown.join("\n"));
}
