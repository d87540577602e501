"""What an operating system needs around the addon: processes, certificates, environment variables, the command line."""
