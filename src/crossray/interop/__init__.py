"""Reports in the words of hospital systems: FHIR bundles and DICOM structured reports."""
