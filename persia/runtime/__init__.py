"""The real system: processes, transport and the driver loops that carry out what the schedules decide."""
