//! The objects of semantics section 1, typed, and how they are read from files.
use std::fmt;

/// A fault in a file or object: what an API server would refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// File name as given to [`Objects::add_yaml`].
    pub file: String,
    /// Number of the document in the file, from 1.
    pub document: usize,
    /// `Kind namespace/name`, as far as known.
    pub object: String,
    /// Path of the field, empty for the whole object.
    pub field: String,
    /// What is wrong and what to do.
    pub message: String,
}
impl fmt::Display for Violation {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}

/// All that was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError {
    /// At least one.
    pub violations: Vec<Violation>,
}
impl fmt::Display for LoadError {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}
impl std::error::Error for LoadError {}

/// A set of objects: at most one per kind, group, namespace and name.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    _private: (),
}

impl Objects {
    /// Adds every document of a YAML (or JSON) text; `List` kinds are unrolled. Unknown kinds of other groups
    /// (Deployment, ConfigMap's siblings, …) are skipped and returned by name for a note to the user.
    ///
    /// # Errors
    /// What an API server would refuse: YAML, unknown fields or wrong types, CRD validation; two objects of the same name.
    /// All violations of the text are reported; on error nothing of it is added.
    pub fn add_yaml(&mut self, file: &str, text: &str) -> Result<Vec<String>, LoadError> {
        let _ = (file, text);
        todo!()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        todo!()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
