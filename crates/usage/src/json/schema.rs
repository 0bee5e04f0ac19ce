//! The static tree that says which values of a JSON document are wanted.

/// What is wanted at one place of a document. Everything that no node names is skipped.
///
/// Trees are `const` data: keys are compared byte by byte, after escapes were undone.
#[derive(Debug)]
pub struct Node<F: 'static> {
    pub(super) field: Option<F>,
    pub(super) is_text: bool,
    pub(super) keys: &'static [(&'static str, Node<F>)],
    pub(super) items: Option<&'static Node<F>>,
}

impl<F: Copy> Node<F> {
    /// A scalar that is captured and reported as `field`.
    pub const fn leaf(field: F) -> Node<F> {
        Node {
            field: Some(field),
            is_text: false,
            keys: &[],
            items: None,
        }
    }

    /// A string that is measured and never kept, however long; other scalars as in a leaf.
    pub const fn text(field: F) -> Node<F> {
        Node {
            is_text: true,
            ..Node::leaf(field)
        }
    }

    /// An object of which these keys are wanted.
    pub const fn object(keys: &'static [(&'static str, Node<F>)]) -> Node<F> {
        Node {
            field: None,
            is_text: false,
            keys,
            items: None,
        }
    }

    /// An array of which every item is wanted.
    pub const fn array(items: &'static Node<F>) -> Node<F> {
        Node {
            field: None,
            is_text: false,
            keys: &[],
            items: Some(items),
        }
    }

    /// The same node, which also reports its opening, its closing and its scalars as `field`.
    pub const fn named(self, field: F) -> Node<F> {
        Node {
            field: Some(field),
            ..self
        }
    }

    /// The same node, which takes an array of such items too.
    pub const fn or_array(self, items: &'static Node<F>) -> Node<F> {
        Node {
            items: Some(items),
            ..self
        }
    }

    pub(super) fn child(&self, key: &[u8]) -> Option<&'static Node<F>> {
        self.keys
            .iter()
            .find(|(name, _)| name.as_bytes() == key)
            .map(|(_, node)| node)
    }

    pub(super) fn takes(&self, container: super::Container) -> bool {
        self.field.is_some()
            || match container {
                super::Container::Object => !self.keys.is_empty(),
                super::Container::Array => self.items.is_some(),
            }
    }
}
