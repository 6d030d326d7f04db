//! What can go wrong in a lab, always with the operation and the object.

use std::io;

/// An error of the lab.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel or the file system refused.
    #[error("cannot {operation} {object}")]
    System {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On what.
        object: String,
        /// The reason given.
        source: io::Error,
    },
    /// Something of this name exists already.
    #[error("{object} already exists; {hint}")]
    Exists {
        /// What exists.
        object: String,
        /// What to do about it.
        hint: String,
    },
    /// Nothing of this name exists.
    #[error("there is no {object}; {hint}")]
    Missing {
        /// What is missing.
        object: String,
        /// What to do about it.
        hint: String,
    },
    /// Input that cannot be used.
    #[error("{object}: {reason}")]
    Invalid {
        /// Which input.
        object: String,
        /// Why.
        reason: String,
    },
    /// Something did not happen in time.
    #[error("{object} {reason}")]
    NotReady {
        /// What was waited for.
        object: String,
        /// What is known about it.
        reason: String,
    },
}

/// Result of the lab's functions.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An [`Error::Invalid`].
    pub fn invalid(object: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { object: object.into(), reason: reason.into() }
    }
}

/// Adds operation and object to errors of the system.
pub(crate) trait Context<T> {
    /// Names what was tried and on what.
    fn context(self, operation: &'static str, object: impl ToString) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, operation: &'static str, object: impl ToString) -> Result<T> {
        self.map_err(|source| Error::System { operation, object: object.to_string(), source: source.into() })
    }
}
