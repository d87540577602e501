"""The management API in Bifrost's shapes, one file a resource."""
