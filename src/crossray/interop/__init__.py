"""Reports in the formats of hospital systems: FHIR bundles and DICOM structured reports."""
