//! Desired state to table contents, and the difference to what is there: the plan.
