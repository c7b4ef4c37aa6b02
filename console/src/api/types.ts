import type { components } from './schema'

type Schemas = components['schemas']

export type Certificate = Schemas['Certificate']
export type Commit = Schemas['Commit']
export type Credential = Schemas['Credential']
export type CredentialTestResult = Schemas['CredentialTestResult']
export type Deployment = Schemas['Deployment']
export type Job = Schemas['Job']
export type JobLine = Schemas['JobLine']
export type PreflightReport = Schemas['PreflightReport']
export type Problem = Schemas['Problem']
export type Provider = Schemas['DNSProvider']
export type ProviderOption = Schemas['ProviderOption']
export type RevokeReason = Schemas['RevokeRequest']['reason']
export type Server = Schemas['Server']
export type Session = Schemas['Session']
export type SetupState = Schemas['SetupState']
export type User = Schemas['User']

/** One page of a list; `next` is the key of the page after it. */
export interface Page<T> {
  items: T[]
  next?: string
}
