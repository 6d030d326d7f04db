//! Kubernetes objects to desired state.

pub mod desired;
