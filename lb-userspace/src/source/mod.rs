//! Where objects come from: files and folders of Kubernetes YAML or JSON, watched.
