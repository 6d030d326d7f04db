//! Which line a field is on. Made only for documents with something wrong, so it may be slow.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::document::options;

/// The lines of all values of a document.
#[derive(Debug, Default)]
pub(super) struct Tree {
    root: Option<Spanned<Node>>,
}

#[derive(Debug)]
enum Node {
    Scalar,
    Sequence(Vec<Spanned<Node>>),
    Mapping(Vec<(String, Spanned<Node>)>),
}

impl Tree {
    /// The lines of a document; of one that cannot be parsed nothing is known.
    pub(super) fn of(text: &str) -> Self {
        Self { root: serde_saphyr::from_str_with_options(text, options()).ok() }
    }

    /// The line, from 1, of the value at a path such as `spec.ports[0].port`, or of the nearest one around it.
    pub(super) fn line(&self, path: &str) -> u64 {
        let Some(root) = &self.root else { return 1 };
        let mut node = root;
        for step in path.split('.').flat_map(|part| part.split('[')).map(|step| step.trim_end_matches(']')) {
            let next = match &node.value {
                Node::Scalar => None,
                Node::Sequence(items) => step.parse::<usize>().ok().and_then(|index| items.get(index)),
                Node::Mapping(entries) => entries.iter().find(|(key, _)| key == step).map(|(_, value)| value),
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node.referenced.line().max(1)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NodeVisitor;

        macro_rules! scalars {
            ($($visit:ident $type:ty;)*) => {
                $(fn $visit<E>(self, _: $type) -> Result<Node, E> { Ok(Node::Scalar) })*
            };
        }

        impl<'de> Visitor<'de> for NodeVisitor {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            scalars! {
                visit_bool bool; visit_i64 i64; visit_u64 u64; visit_i128 i128; visit_u128 u128;
                visit_f64 f64; visit_str &str; visit_bytes &[u8];
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_none<E>(self) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
                Node::deserialize(deserializer)
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
                IgnoredAny::deserialize(deserializer).map(|_| Node::Scalar)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Node::Sequence(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Node::Mapping(entries))
            }
        }

        deserializer.deserialize_any(NodeVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_fields_and_what_is_around_them() {
        let tree = Tree::of("a: 1\nb:\n  c:\n  - x\n  - d: 5\n    e: [1,\n      2]\n");
        assert_eq!(tree.line("a"), 1);
        assert_eq!(tree.line("b.c[0]"), 4);
        assert_eq!(tree.line("b.c[1].d"), 5);
        assert_eq!(tree.line("b.c[1].e[1]"), 7);
        assert_eq!(tree.line("b.c[1].missing"), 5);
        assert_eq!(Tree::of("{").line("a"), 1);
    }
}
