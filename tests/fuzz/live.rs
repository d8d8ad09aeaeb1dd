//! A real daemon under hostile input on all its sockets at once.
