//! Whether translated packets may go past the host's own forwarding.

use super::check::{Check, Status};
use crate::forwarding;

const NAME: &str = "direct forwarding";

/// All checks here.
pub(super) fn checks() -> Vec<Check> {
    vec![check(forwarding::look())]
}

fn check(rules: Result<forwarding::Rules, forwarding::RulesError>) -> Check {
    match rules {
        Ok(rules) if rules.is_empty() => Check::ok(NAME, "used at tc: no rules see forwarded packets"),
        Ok(rules) => Check::bad(
            Status::Note,
            NAME,
            format!("not used: rules see forwarded packets: {rules}"),
            "if these rules need not see Services' packets: lb run --forwarding direct",
        ),
        Err(error) => {
            Check::bad(Status::Note, NAME, format!("could not see: {error}"), "run `lb doctor` as root")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_in_the_way_are_named() {
        assert_eq!(check(Ok(forwarding::Rules::default())).status, Status::Ok);
        let rules = forwarding::Rules::of(["inet filter forward (1 rule)".to_owned()]);
        let check = check(Ok(rules));
        assert_eq!(check.status, Status::Note);
        assert!(check.found.contains("inet filter forward (1 rule)"), "{}", check.found);
    }
}
